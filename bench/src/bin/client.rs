//! A client that does the same thing every time: N requests, one after another, on one connection.
//! `client ADDRESS COUNT REQUESTS` sends the requests of the file in turn; they are separated by a NUL byte.
//! Prints how many answers there were of each status. Instructions are counted under this client, because with
//! many connections the number of wake-ups, and with it the figure, would differ from run to run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Done<()> {
    let [address, count, requests] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage")?;
    let requests = std::fs::read(requests)?;
    let requests: Vec<&[u8]> = requests.split(|&byte| byte == 0).filter(|request| !request.is_empty()).collect();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut statuses = BTreeMap::<String, u64>::new();
    for request in requests.iter().cycle().take(count.parse()?) {
        stream.write_all(request)?;
        *statuses.entry(status_of_next(&mut answers)?).or_default() += 1;
    }
    for (status, count) in statuses {
        println!("{status} {count}");
    }
    Ok(())
}

/// Reads one answer to its end and returns its status code.
fn status_of_next(answers: &mut impl BufRead) -> Done<String> {
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
