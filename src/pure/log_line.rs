//! Lines of the log: one for each call that has ended, and one for each thing that the operator is told.
//!
//! A line is one line whatever is written into it, and of what a client sent it holds nothing but the ids that were
//! checked before: no path, query, header, body or key.

use std::fmt::{self, Display, Write};

use super::stamp::Stamp;
use super::trace::TraceId;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

/// How much a line matters; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is as it should be.
    Info,
    /// Something is wrong that the operator can do something about.
    Warn,
    /// A library has failed at what it was to do.
    Error,
}

impl Level {
    /// The name, as the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    /// The level of a call that ended in `status`: what we have failed at matters more than what clients have.
    pub fn of_status(status: u16) -> Level {
        if status >= 500 { Level::Warn } else { Level::Info }
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct CallLine<'a> {
    /// When it ended, in milliseconds of Unix time.
    pub unix_ms: u64,
    /// Its `X-Request-ID`.
    pub request_id: &'a str,
    /// The trace that it is part of.
    pub trace_id: Option<TraceId>,
    /// Its method; [`UNKNOWN_METHOD`] for those that HTTP does not define.
    pub method: &'static str,
    /// The name of what it reached.
    pub route: &'a str,
    /// How it was answered; [`UNANSWERED`] if it was not.
    pub status: u16,
    /// The code of its fault, or why there was no answer.
    pub code: Option<&'static str>,
    /// The format of the answer; `None` for answers that have but one.
    pub format: Option<&'static str>,
    /// The number of the account that called.
    pub account: Option<u32>,
    /// The first characters of its key.
    pub key: Option<&'a str>,
    /// How much of a body was read.
    pub request_bytes: usize,
    /// How long the body of the answer is.
    pub response_bytes: usize,
    /// From its head to its answer, in microseconds.
    pub elapsed_us: u64,
}

/// In place of a status where there was no answer, as nginx has it.
pub const UNANSWERED: u16 = 499;

/// In place of a method that HTTP does not define, which is text of the client's.
pub const UNKNOWN_METHOD: &str = "other";

/// A method as lines have it.
pub fn method(name: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or(UNKNOWN_METHOD)
}

impl CallLine<'_> {
    /// Appends the line.
    pub fn write(&self, format: LogFormat, to: &mut String) {
        match format {
            LogFormat::Human => self.write_human(to),
            LogFormat::Json => self.write_json(to),
        }
    }

    fn write_human(&self, to: &mut String) {
        write_time(self.unix_ms, to);
        for word in [Level::of_status(self.status).name(), self.method, self.route] {
            to.push(' ');
            to.push_str(word);
        }
        to.push(' ');
        push_number(self.status.into(), to);
        for word in [self.code, self.format].into_iter().flatten() {
            to.push(' ');
            to.push_str(word);
        }
        to.push_str(" in=");
        push_number(self.request_bytes as u64, to);
        to.push_str(" out=");
        push_number(self.response_bytes as u64, to);
        to.push_str(" ms=");
        push_ms(self.elapsed_us, to);
        if let Some(account) = self.account {
            to.push_str(" account=");
            push_number(account.into(), to);
        }
        let id = (" id=", Some(self.request_id));
        let trace_id = self.trace_id.as_ref().map(TraceId::as_str);
        for (name, value) in [(" key=", self.key), id, (" trace=", trace_id)] {
            if let Some(value) = value {
                to.push_str(name);
                push_plain(value, to);
            }
        }
        to.push('\n');
    }

    fn write_json(&self, to: &mut String) {
        to.push_str("{\"time\":\"");
        write_time(self.unix_ms, to);
        to.push('"');
        let texts = [
            (",\"level\":\"", Some(Level::of_status(self.status).name())),
            (",\"request_id\":\"", Some(self.request_id)),
            (",\"trace_id\":\"", self.trace_id.as_ref().map(TraceId::as_str)),
            (",\"method\":\"", Some(self.method)),
            (",\"route\":\"", Some(self.route)),
            (",\"code\":\"", self.code),
            (",\"format\":\"", self.format),
            (",\"key\":\"", self.key),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                to.push_str(name);
                push_plain(value, to);
                to.push('"');
            }
        }
        let numbers = [
            (",\"status\":", Some(self.status.into())),
            (",\"account\":", self.account.map(u64::from)),
            (",\"request_bytes\":", Some(self.request_bytes as u64)),
            (",\"response_bytes\":", Some(self.response_bytes as u64)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                to.push_str(name);
                push_number(value, to);
            }
        }
        to.push_str(",\"ms\":");
        push_ms(self.elapsed_us, to);
        to.push_str("}\n");
    }
}

/// Something that the operator is told.
#[derive(Clone, Copy)]
pub struct EventLine<'a> {
    /// When, in milliseconds of Unix time.
    pub unix_ms: u64,
    /// How much it matters.
    pub level: Level,
    /// Who tells it: the program, or a module of a library.
    pub target: &'a str,
    /// What it is. The end is cut off where it is over [`MESSAGE_BYTES_MAX`].
    pub message: &'a dyn Display,
}

impl EventLine<'_> {
    /// Appends the line.
    pub fn write(&self, format: LogFormat, to: &mut String) {
        let json = format == LogFormat::Json;
        to.push_str(if json { "{\"time\":\"" } else { "" });
        write_time(self.unix_ms, to);
        to.push_str(if json { "\",\"level\":\"" } else { " " });
        to.push_str(self.level.name());
        to.push_str(if json { "\",\"target\":\"" } else { " " });
        self.target
            .chars()
            .for_each(|c| to.push(if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '?' }));
        to.push_str(if json { "\",\"message\":\"" } else { ": " });
        let room = MESSAGE_BYTES_MAX;
        // It fails when there is no room left, and what fitted stays.
        let _ = write!(Escaped { json, room, to }, "{}", self.message);
        to.push_str(if json { "\"}\n" } else { "\n" });
    }
}

/// The longest message, in bytes as they are written. Those of ours are far shorter.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Text in which nothing ends a line or controls a terminal, and for JSON nothing ends a string.
struct Escaped<'a> {
    json: bool,
    room: usize,
    to: &'a mut String,
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let breaks_json = self.json && matches!(c, '"' | '\\');
            let mut form = [0; 4];
            let escape = match c {
                _ if breaks_json => format!("\\{c}"),
                // Line and paragraph separators end a line for some readers.
                _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => format!("\\u{:04x}", u32::from(c)),
                _ => String::new(),
            };
            let form = if escape.is_empty() { &*c.encode_utf8(&mut form) } else { &escape };
            self.room = self.room.checked_sub(form.len()).ok_or(fmt::Error)?;
            self.to.push_str(form);
        }
        Ok(())
    }
}

/// RFC 3339 with milliseconds, in UTC.
fn write_time(unix_ms: u64, to: &mut String) {
    let Some(stamp) = Stamp::at(unix_ms / 1_000) else { return };
    to.push_str(stamp.rfc3339().as_str().trim_end_matches('Z'));
    to.push('.');
    push_padded(unix_ms % 1_000, to);
    to.push('Z');
}

/// Milliseconds with three decimals.
fn push_ms(us: u64, to: &mut String) {
    push_number(us / 1_000, to);
    to.push('.');
    push_padded(us % 1_000, to);
}

/// Three digits.
fn push_padded(number: u64, to: &mut String) {
    let digit = |number: u64| char::from(b'0' + (number % 10) as u8);
    to.extend([digit(number / 100), digit(number / 10), digit(number)]);
}

fn push_number(number: u64, to: &mut String) {
    to.push_str(itoa::Buffer::new().format(number));
}

/// An id. They were checked where they came in; here nothing else gets through, whatever was checked.
fn push_plain(text: &str, to: &mut String) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    // All are looked at: so it is done to many at a time.
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        to.push_str(text);
    } else {
        to.extend(text.chars().map(|c| if u8::try_from(c).is_ok_and(plain) { c } else { '?' }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::trace::TraceParent;
    use super::*;

    const CALL: CallLine<'_> = CallLine {
        unix_ms: 1_765_924_235_007,
        request_id: "7f1c2e0a",
        trace_id: None,
        method: "POST",
        route: "totpgenerator",
        status: 200,
        code: None,
        format: Some("json"),
        account: Some(1),
        key: Some("pg-IYZ8lJ"),
        request_bytes: 53,
        response_bytes: 131,
        elapsed_us: 412,
    };

    fn line(call: &CallLine<'_>, format: LogFormat) -> String {
        let mut text = String::new();
        call.write(format, &mut text);
        text
    }

    fn event(message: &str, format: LogFormat) -> String {
        let mut text = String::new();
        let unix_ms = 1_765_924_235_999;
        EventLine { unix_ms, level: Level::Warn, target: "polygate", message: &message }.write(format, &mut text);
        text
    }

    #[test]
    fn a_call_is_a_line_for_people() {
        let wanted = "2025-12-16T22:30:35.007Z info POST totpgenerator 200 json in=53 out=131 ms=0.412 account=1 \
                      key=pg-IYZ8lJ id=7f1c2e0a\n";
        assert_eq!(line(&CALL, LogFormat::Human), wanted);
        let trace_id = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .map(|parent| parent.trace_id);
        let refused = CallLine {
            trace_id,
            status: 503,
            code: Some("unavailable"),
            account: None,
            key: None,
            elapsed_us: 1_002_000,
            ..CALL
        };
        let wanted = "2025-12-16T22:30:35.007Z warn POST totpgenerator 503 unavailable json in=53 out=131 ms=1002.000 \
                      id=7f1c2e0a trace=4bf92f3577b34da6a3ce929d0e0e4736\n";
        assert_eq!(line(&refused, LogFormat::Human), wanted);
    }

    #[test]
    fn a_call_is_an_object_for_programs() {
        let trace_id = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .map(|parent| parent.trace_id);
        let call = CallLine { trace_id, code: Some("invalid-key"), status: 401, ..CALL };
        let wanted = json!({
            "time": "2025-12-16T22:30:35.007Z", "level": "info", "request_id": "7f1c2e0a",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "method": "POST", "route": "totpgenerator",
            "code": "invalid-key", "format": "json", "key": "pg-IYZ8lJ", "status": 401, "account": 1,
            "request_bytes": 53, "response_bytes": 131, "ms": 0.412,
        });
        assert_eq!(serde_json::from_str::<Value>(&line(&call, LogFormat::Json)).unwrap(), wanted);
        let bare = CallLine { code: None, format: None, account: None, key: None, trace_id: None, ..CALL };
        let object: Value = serde_json::from_str(&line(&bare, LogFormat::Json)).unwrap();
        assert_eq!(object.as_object().unwrap().len(), 9, "{object}");
    }

    #[test]
    fn a_method_that_is_none_is_not_repeated() {
        assert_eq!(["GET", "get", "JBSWY3DPEHPK3PXP", ""].map(method), ["GET", "other", "other", "other"]);
    }

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let wanted = "2025-12-16T22:30:35.999Z warn polygate: two\\u000alines\\u001b[31m\\u2028 é \" \\\n";
        assert_eq!(event("two\nlines\u{1b}[31m\u{2028} é \" \\", LogFormat::Human), wanted);
        const LINE: &str = r#"{"time":"","level":"warn","target":"polygate","message":""}"#;
        let long = event(&"\n".repeat(10_000), LogFormat::Json);
        assert_eq!(long.len(), MESSAGE_BYTES_MAX / 6 * 6 + LINE.len() + 25);
        assert!(serde_json::from_str::<Value>(&long).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_ends_a_line_early(text in any::<String>()) {
            let call = CallLine { request_id: &text, key: Some(&text), ..CALL };
            for format in [LogFormat::Human, LogFormat::Json] {
                for written in [line(&call, format), event(&text, format)] {
                    prop_assert_eq!(written.chars().filter(|c| c.is_control()).count(), 1);
                    prop_assert!(written.ends_with('\n'));
                    if format == LogFormat::Json {
                        prop_assert!(serde_json::from_str::<Value>(&written).unwrap().is_object());
                    }
                }
            }
            let object: Value = serde_json::from_str(&event(&text, LogFormat::Json)).unwrap();
            prop_assert!(text.starts_with(object["message"].as_str().unwrap()));
        }
    }
}
