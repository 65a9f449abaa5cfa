//! The real program, run on a data directory of its own: its commands, and a server.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A data directory that does not exist yet, and the program run on it.
pub struct Desk {
    pub directory: TempDir,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { directory: tempfile::tempdir().unwrap() }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a configuration, for `--config polygate.yaml`.
    pub fn write(&self, yaml: &str) {
        std::fs::write(self.directory.path().join("polygate.yaml"), yaml).unwrap();
    }

    /// The program, in an empty environment, so that nothing of the machine's own settings counts.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polygate"));
        command.env_clear().current_dir(&self.directory).args(["--data", "data"]).args(line.split_whitespace());
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of a command that succeeds without a word on standard error.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.as_str()), (Some(0), ""), "{line}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Exit code and standard error of a command that fails and prints nothing else.
    pub fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(line);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{line}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub fn create(&self, options: &str) -> String {
        let key = self.ok(&format!("keys create {options}"));
        key.strip_suffix('\n').unwrap().to_owned()
    }
}

/// A server that has said that it listens, on a port of its own.
pub struct Server {
    pub child: Child,
    pub url: String,
    /// What else it prints.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub fn start(desk: &Desk, options: &str) -> Server {
        Server::spawn(desk.command(&format!("serve --listen 127.0.0.1:0 {options}")))
    }

    /// Runs a command that becomes a server.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let head = lines.next().unwrap().unwrap();
        let url = head.strip_prefix("Polygate listens on ").unwrap_or_else(|| panic!("{head}")).to_owned();
        Server { child, url, lines }
    }

    pub fn printed(&mut self, start: &str) -> Option<String> {
        self.lines.by_ref().map(|line| line.unwrap().trim().to_owned()).find(|line| line.starts_with(start))
    }

    /// What else it prints until it ends.
    pub fn rest(&mut self) -> Vec<String> {
        self.lines.by_ref().map(Result::unwrap).collect()
    }

    /// The status of a call with a key.
    pub fn call(&self, key: &str) -> u16 {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        let path = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
