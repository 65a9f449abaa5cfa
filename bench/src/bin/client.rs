//! A client that does the same thing every time: on each of 64 connections in turn it sends a request, then it takes
//! the 64 answers in the same order, and so on. `client ADDRESS COUNT REQUESTS` sends the requests of the file one
//! after another; they are separated by a NUL byte. Prints how many answers there were of each status.
//! Instructions are counted under this client: with a free-running load the number of wake-ups, and with it the
//! figure, differs from run to run, and with one connection every request would pay a whole wake-up of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const CONNECTIONS: usize = 64;

fn main() -> Done<()> {
    let [address, count, requests] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: client ADDRESS:PORT COUNT REQUESTS")?;
    let mut left: usize = count.parse()?;
    let requests = std::fs::read(requests)?;
    let mut requests = requests.split(|&byte| byte == 0).filter(|request| !request.is_empty()).cycle();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(&address)?;
        stream.set_nodelay(true)?;
        connections.push(BufReader::new(stream));
    }
    let mut statuses = BTreeMap::<String, usize>::new();
    while left > 0 {
        let turn = left.min(CONNECTIONS);
        for connection in &mut connections[..turn] {
            connection.get_mut().write_all(requests.next().ok_or("no requests")?)?;
        }
        for connection in &mut connections[..turn] {
            *statuses.entry(take_answer(connection)?).or_default() += 1;
        }
        left -= turn;
    }
    for (status, count) in statuses {
        println!("{status} {count}");
    }
    Ok(())
}

/// Reads one answer to its end and returns its status code.
fn take_answer(answers: &mut impl BufRead) -> Done<String> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or("no status line")?.to_owned();
    let mut body_bytes = 0;
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or("a header line without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse()?;
        }
    }
    answers.read_exact(&mut vec![0; body_bytes])?;
    Ok(status)
}
