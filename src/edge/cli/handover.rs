//! Sockets from the program before, and to the program after: what listens goes on listening, whoever answers.
//!
//! Both go by the protocol of sd_listen_fds(3). systemd begins it, and so does this program when it becomes another, mostly
//! a newer version of itself, in the same process.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::iter;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::config::{self, ConfigErrors};
use crate::edge::http::listeners::{Inherited, ListenError, Listeners, Side};

use super::{Failure, Options};

/// A socket, and whom it is for.
pub(super) type Held = (Side, TcpListener);

/// Why the program that is there now does not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandOverError {
    // A line of the log is one line.
    #[error("the configuration has mistakes: {}", .0.mistakes().join("; "))]
    Config(ConfigErrors),
    #[error("{program} cannot be run: {cause}")]
    Unusable { program: String, cause: io::Error },
    #[error("{program} does not take the configuration: {said}")]
    Refused { program: String, said: String },
    #[error("the sockets cannot be handed on: {0}")]
    Sockets(#[from] io::Error),
}

/// The first of the descriptors that are handed on, a word that listenfd adds to the protocol. systemd never says it: its
/// first is 3.
const FIRST: &str = "LISTEN_FDS_FIRST_FD";
const FIRST_FD: RawFd = 3;
/// Whom the descriptors are for, with colons in between. Names that systemd gives them count as public.
const NAMES: &str = "LISTEN_FDNAMES";
const PRIVATE: &str = "private";
const PUBLIC: &str = "public";

/// The sockets that this process was given, and whether they are from its like.
///
/// # Errors
/// One of them is none for TCP.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(super) fn inherited() -> Result<(Inherited, bool), ListenError> {
    let mut given = ListenFd::from_env();
    let names = std::env::var(NAMES).unwrap_or_default();
    let sides = names.split(':').map(|name| if name == PRIVATE { Side::Private } else { Side::Public });
    let sides = sides.chain(iter::repeat(Side::Public));
    let sockets = (0..given.len()).zip(sides).filter_map(|(number, side)| {
        let socket = given.take_tcp_listener(number).transpose()?;
        Some(socket.map(|socket| (side, socket)))
    });
    let sockets = sockets.collect::<io::Result<_>>();
    let inherited = sockets.and_then(Inherited::new).map_err(ListenError::Inherited)?;
    Ok((inherited, std::env::var_os(FIRST).is_some()))
}

/// Finds out whether the program that is there now would start with the configuration that is there now, and binds what it
/// adds to `held`: what can go wrong does so while this one still serves. Returns the sockets to hand on.
///
/// Blocks until that program has answered.
pub(super) fn prepare(options: &Options, held: &[Held]) -> Result<Vec<Held>, Failure> {
    if let Some(file) = options.file() {
        // The other program would take what is left of a pipe for all that there is.
        config::can_be_read_again(&file).map_err(HandOverError::Config)?;
    }
    let (program, _) = typed(options);
    let name = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(["config", "check"]).stdin(Stdio::null());
    for (option, value) in [("--config", &options.config), ("--data", &options.data)] {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            // A line of the log is one line.
            let said: Vec<_> = output.stderr.lines().map_while(Result::ok).map(|line| line.trim().to_owned()).collect();
            let mut said: String = said.join(" ").chars().take(SAID_MAX).collect();
            if said.is_empty() {
                said = output.status.to_string();
            }
            return Err(HandOverError::Refused { program: name, said }.into());
        }
        Err(cause) => return Err(HandOverError::Unusable { program: name, cause }.into()),
    }
    let held = held.iter().map(|(side, socket)| Ok((*side, socket.try_clone()?))).collect::<io::Result<Vec<_>>>();
    let held = held.map_err(HandOverError::from)?;
    // A newer program may know keys that this one does not.
    let Ok(config) = options.reload() else { return Ok(held) };
    let mut inherited = Inherited::new(held).map_err(HandOverError::from)?;
    let listeners = Listeners::bind(&config, &mut inherited)?;
    Ok(listeners.copies().map_err(HandOverError::from)?)
}

/// The most that is repeated of what a program said, in characters.
const SAID_MAX: usize = 4_096;

/// Becomes the program that is there now, with the same arguments and these sockets; where that fails, this one anew. Returns
/// where it is to `stop` instead, or where both fail.
pub(super) fn exec(
    options: &Options,
    held: &[Held],
    mut stop: impl FnMut() -> bool,
    tell: impl Fn(&HandOverError),
) -> Result<(), HandOverError> {
    let names: Vec<_> = held.iter().map(|(side, _)| if *side == Side::Private { PRIVATE } else { PUBLIC }).collect();
    let sockets = in_a_row(held.iter().map(|(_, socket)| socket))?;
    let first = sockets.first().map_or(FIRST_FD, AsRawFd::as_raw_fd);
    let (name, arguments) = typed(options);
    let mut become_program = |program: &OsString| {
        let mut command = Command::new(program);
        command.arg0(name).args(arguments);
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_PID", process::id().to_string());
        command.env(FIRST, first.to_string()).env(NAMES, names.join(":"));
        // A signal that has been caught and not looked at would be forgotten with this program.
        if stop() {
            return Ok(());
        }
        let cause = command.exec();
        Err(HandOverError::Unusable { program: program.to_string_lossy().into_owned(), cause })
    };
    let Err(error) = become_program(name) else { return Ok(()) };
    tell(&error);
    // What runs is still there, even where its file is not.
    become_program(&"/proc/self/exe".into())
}

/// The name of the program as it was typed, so that links and the search path lead to what is there now; and the rest.
fn typed(options: &Options) -> (&OsString, &[OsString]) {
    options.arguments.split_first().expect("a program that was parsed has a name")
}

/// Copies of `sockets` under numbers that follow each other, which outlive the program.
fn in_a_row<'a>(sockets: impl Iterator<Item = &'a TcpListener> + Clone) -> io::Result<Vec<OwnedFd>> {
    let mut first = FIRST_FD;
    let row = 'row: loop {
        let mut row: Vec<OwnedFd> = Vec::new();
        for socket in sockets.clone() {
            let wanted = row.last().map_or(first, |last| last.as_raw_fd() + 1);
            let copy = fcntl_dupfd_cloexec(socket, wanted)?;
            if !row.is_empty() && copy.as_raw_fd() != wanted {
                // Something is in the way.
                first = copy.as_raw_fd();
                continue 'row;
            }
            row.push(copy);
        }
        break row;
    };
    for copy in &row {
        fcntl_setfd(copy, FdFlags::empty())?;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_in_a_row_whatever_is_in_the_way() {
        let mut sockets: Vec<_> = (0..20).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        // Leaves single numbers free.
        let mut number = 0;
        sockets.retain(|_| {
            number += 1;
            number % 3 > 0
        });
        let row = in_a_row(sockets.iter()).unwrap();
        assert_eq!(row.len(), sockets.len());
        let numbers: Vec<_> = row.iter().map(AsRawFd::as_raw_fd).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}
