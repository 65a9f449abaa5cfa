//! Sockets that outlive programs: inherited from whoever started this one, and handed on to the one after it.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::program::{Desk, Server};

fn signal(server: &Server, name: &str) {
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

fn stop(mut server: Server) {
    signal(&server, "TERM");
    assert!(server.child.wait().unwrap().success());
}

/// A command that is given a socket as systemd would.
fn inheriting(command: &Command, socket: &TcpListener) -> Command {
    let mut shell = Command::new("sh");
    let script = r#"LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3<&0 </dev/null"#;
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    shell.stdin(OwnedFd::from(socket.try_clone().unwrap()));
    shell.env_clear().env("PATH", "/usr/bin:/bin").current_dir(command.get_current_dir().unwrap());
    shell
}

#[test]
fn a_successor_has_the_sockets_and_the_process() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("listen: [127.0.0.1:0, '[::1]:0']\nprivate_listen: 127.0.0.1:0");
    let mut server = Server::spawn(desk.command("serve --config polygate.yaml"));
    let metrics = server.printed("Metrics, health and administration: ").unwrap();
    for _ in 0..2 {
        assert_eq!(server.call(&key), 200);
        signal(&server, "USR2");
        assert_eq!(server.printed("Polygate listens on "), Some(format!("Polygate listens on {}", server.url)));
        assert_eq!(server.printed("Metrics, health and administration: ").unwrap(), metrics);
    }
    assert_eq!(server.call(&key), 200);
    stop(server);
    let database = rusqlite::Connection::open(desk.data().join("polygate.db")).unwrap();
    let charged = "SELECT sum(ok), sum(credits) FROM usage_hour";
    assert_eq!(database.query_row(charged, [], |row| Ok((row.get(0)?, row.get(1)?))), Ok((3, 3)));
}

#[test]
fn an_address_that_is_taken_away_is_no_more_listened_to_and_a_new_one_is() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("listen: [127.0.0.1:0, 127.0.0.2:0]");
    let mut server = Server::spawn(desk.command("serve --config polygate.yaml"));
    let address = |line: String| line.strip_prefix("Polygate listens on http://").unwrap().to_owned();
    let gone = address(server.printed("Polygate listens on ").unwrap());
    assert!(TcpStream::connect(&gone).is_ok());
    desk.write("listen: [127.0.0.1:0, 127.0.0.3:0]");
    signal(&server, "USR2");
    assert_eq!(server.printed("Polygate listens on "), Some(format!("Polygate listens on {}", server.url)));
    assert_eq!(server.call(&key), 200);
    let new = address(server.printed("Polygate listens on ").unwrap());
    assert!(new.starts_with("127.0.0.3:") && TcpStream::connect(&new).is_ok());
    assert!(TcpStream::connect(&gone).is_err());
    stop(server);
}

#[test]
fn public_and_private_sockets_do_not_change_places() {
    let desk = Desk::new();
    let key = desk.create("");
    desk.write("listen: [127.0.0.1:0, 127.0.0.1:0]\nprivate_listen: 127.0.0.1:0");
    let mut server = Server::spawn(desk.command("serve --config polygate.yaml"));
    let first = server.url.strip_prefix("http://").unwrap().to_owned();
    let second = server.printed("Polygate listens on ").unwrap();
    let second = second.strip_prefix("Polygate listens on http://").unwrap().to_owned();
    let private = server.printed("Metrics, health and administration: ").unwrap();
    // The second is free, and any would do as the private one.
    desk.write(&format!("listen: {first}\nprivate_listen: 127.0.0.1:0"));
    signal(&server, "USR2");
    assert_eq!(server.printed("Metrics, health and administration: ").unwrap(), private);
    assert!(TcpStream::connect(&second).is_err());
    // The private one is free, and any would do as a public one.
    desk.write(&format!("listen: [{first}, 127.0.0.1:0]"));
    signal(&server, "USR2");
    assert_eq!(server.printed("Polygate listens on "), Some(format!("Polygate listens on {}", server.url)));
    let new = server.printed("Polygate listens on ").unwrap();
    let new = new.strip_prefix("Polygate listens on ").unwrap();
    assert!(!private.contains(new), "{new} is the address in: {private}");
    assert_eq!(server.call(&key), 200);
    stop(server);
}

#[test]
fn an_inherited_socket_is_served_and_outlives_the_server() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let desk = Desk::new();
    let key = desk.create("");
    for _ in 0..2 {
        let command = desk.command(&format!("serve --listen {address}"));
        let server = Server::spawn(inheriting(&command, &socket));
        assert_eq!(server.url, format!("http://{address}"));
        assert_eq!(server.call(&key), 200);
        stop(server);
    }
}

#[test]
fn an_inherited_socket_that_nothing_names_stops_the_start() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let desk = Desk::new();
    let output = inheriting(&desk.command("serve --listen 127.0.0.2:0"), &socket).output().unwrap();
    let address = socket.local_addr().unwrap();
    let wanted = format!(
        "polygate: a socket for {address} was inherited by LISTEN_FDS, which neither listen nor private_listen names\n"
    );
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), wanted));
    assert!(!desk.data().exists());
}

#[test]
fn a_check_of_the_configuration_looks_at_the_certificate_too() {
    let desk = Desk::new();
    desk.write("tls: { certificate: none.pem, key: none.pem }");
    let (code, error) = desk.fails("config check --config polygate.yaml");
    assert_eq!((code, error.starts_with("polygate: none.pem cannot be read: ")), (1, true), "{error}");
}
