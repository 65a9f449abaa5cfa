//! JSON bytes to events: a strict RFC 8259 reader that builds no tree and can be fed in pieces.
//!
//! What it holds is its place in the text (one bit a level), the one token that two pieces share, and one string with
//! escapes undone. It is stricter than many: no byte order mark, no lone surrogates, at most [`DEPTH_MAX`] levels.
//! Keys that come twice pass, unless it is made by [`Tokenizer::without_duplicates`].

use super::emit::Emit;
use super::lexemes::{Flaw, number, string};
use super::seen::Seen;
use super::{DEPTH_MAX, JsonError, Reason};

/// The longest token, in bytes, that may be spread over pieces. A text that comes in one piece has no such limit.
pub const CARRY_BYTES_MAX: usize = 1 << 20;
/// The most keys that the open objects may have together where none may come twice: some ten bytes are kept of each.
pub const KEYS_MAX: usize = 1 << 18;

/// Sends a whole JSON text to an emitter.
///
/// # Errors
/// Where the text is not JSON, or where the emitter refuses an event.
pub fn read(json: &[u8], sink: &mut impl Emit) -> Result<(), JsonError> {
    read_by(Tokenizer::new(), json, sink)
}

/// Like [`read`], but an object with the same key twice is an error.
///
/// # Errors
/// Those of [`read`], [`Reason::DuplicateKey`] and [`Reason::TooManyKeys`].
pub fn read_without_duplicates(json: &[u8], sink: &mut impl Emit) -> Result<(), JsonError> {
    read_by(Tokenizer::without_duplicates(), json, sink)
}

fn read_by(mut tokenizer: Tokenizer, json: &[u8], sink: &mut impl Emit) -> Result<(), JsonError> {
    tokenizer.feed(json, sink)?;
    tokenizer.finish(sink)
}

/// Reads one JSON text that comes in pieces of any size.
pub struct Tokenizer {
    expect: Expect,
    depth: usize,
    /// Bit n tells whether the container at depth n + 1 is an object.
    objects: u128,
    /// Bytes of all pieces before the present one.
    consumed: usize,
    /// The beginning of a token that the last piece cut off.
    carry: Vec<u8>,
    /// Where the carry began, in bytes from the start of the text.
    carry_at: usize,
    /// The carry ends in the backslash of an escape.
    carry_escapes: bool,
    /// The last string that had escapes, with its escapes undone.
    unescaped: String,
    seen: Option<Seen>,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

const _: () = assert!(DEPTH_MAX <= u128::BITS as usize);

impl Tokenizer {
    /// Ready for the first piece.
    #[expect(clippy::new_without_default, reason = "a default tokenizer would hide which of the two kinds it is")]
    pub fn new() -> Self {
        Tokenizer {
            expect: Expect::Value,
            depth: 0,
            objects: 0,
            consumed: 0,
            carry: Vec::new(),
            carry_at: 0,
            carry_escapes: false,
            unescaped: String::new(),
            seen: None,
        }
    }

    /// Ready for the first piece, and refuses keys that come twice in an object. The keys of the objects that are open
    /// are remembered, [`KEYS_MAX`] at most.
    pub fn without_duplicates() -> Self {
        Tokenizer { seen: Some(Seen::default()), ..Tokenizer::new() }
    }

    /// Takes the next piece and sends what it completes.
    ///
    /// # Errors
    /// Where the text stops being JSON, where the emitter refuses an event, or where a token that is spread over pieces
    /// exceeds [`CARRY_BYTES_MAX`]. After an error the tokenizer is of no more use.
    pub fn feed(&mut self, piece: &[u8], sink: &mut impl Emit) -> Result<(), JsonError> {
        let mut start = 0;
        if !self.carry.is_empty() {
            let end = self.carried_token_end(piece);
            start = end.unwrap_or(piece.len());
            self.keep(&piece[..start])?;
            if end.is_some() {
                self.complete_carry(sink)?;
            }
        }
        let rest = &piece[start..];
        let base = self.consumed + start;
        // A character may be cut in two by the end of the piece, but only within a string.
        let (text, flawed, broken) = match std::str::from_utf8(rest) {
            Ok(text) => (text, false, false),
            Err(error) => {
                (rest.utf8_chunks().next().map_or("", |chunk| chunk.valid()), true, error.error_len().is_some())
            }
        };
        let cut = self.run(text, false, sink).map_err(|flaw| at(base, flaw))?;
        if broken || flawed && rest[cut] != b'"' {
            return Err(at(base, (text.len(), Reason::InvalidUtf8)));
        }
        if cut < rest.len() {
            self.carry_at = base + cut;
            self.carry_escapes = false;
            self.keep(&rest[cut..=cut])?;
            self.carried_token_end(&rest[cut + 1..]);
            self.keep(&rest[cut + 1..])?;
        }
        self.consumed += piece.len();
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    /// When the document is not complete.
    pub fn finish(&mut self, sink: &mut impl Emit) -> Result<(), JsonError> {
        if self.carry.first().is_some_and(|&byte| byte != b'"') {
            self.complete_carry(sink)?;
        }
        if self.is_complete() { Ok(()) } else { Err(at(self.consumed, (0, Reason::UnexpectedEnd))) }
    }

    /// Bytes of all pieces so far.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// True once the document is complete: only white space may come.
    pub fn is_complete(&self) -> bool {
        self.expect == Expect::Nothing && self.carry.is_empty()
    }

    /// Where in a new piece the carried token ends; `None` when it goes on. Looks at each byte once, so that many small
    /// pieces cost no more than a large one.
    fn carried_token_end(&mut self, piece: &[u8]) -> Option<usize> {
        if self.carry[0] != b'"' {
            return piece
                .iter()
                .position(|&byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')));
        }
        let mut i = 0;
        while i < piece.len() {
            if std::mem::take(&mut self.carry_escapes) {
                i += 1;
                continue;
            }
            i += memchr::memchr2(b'"', b'\\', &piece[i..])? + 1;
            if piece[i - 1] == b'"' {
                return Some(i);
            }
            self.carry_escapes = true;
        }
        None
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), JsonError> {
        if self.carry.len() + part.len() > CARRY_BYTES_MAX {
            return Err(JsonError { offset: self.carry_at, reason: Reason::TokenTooLong });
        }
        self.carry.extend_from_slice(part);
        Ok(())
    }

    /// Sends the carried token, which is complete.
    fn complete_carry(&mut self, sink: &mut impl Emit) -> Result<(), JsonError> {
        let mut carry = std::mem::take(&mut self.carry);
        let flaw = match std::str::from_utf8(&carry) {
            Ok(text) => self.run(text, true, sink).err(),
            Err(error) => Some((error.valid_up_to(), Reason::InvalidUtf8)),
        };
        carry.clear();
        self.carry = carry;
        flaw.map_or(Ok(()), |flaw| Err(at(self.carry_at, flaw)))
    }

    /// Reads on through `text` and answers where in it a token begins that its end cuts off, or its length. With `ended`
    /// a number or literal may reach to the end.
    fn run<S: Emit>(&mut self, text: &str, ended: bool, sink: &mut S) -> Result<usize, Flaw> {
        let bytes = text.as_bytes();
        let mut i = 0;
        while let Some(&byte) = bytes.get(i) {
            let start = i;
            let sent = match (byte, self.expect) {
                (b' ' | b'\n' | b'\r' | b'\t', _) => {
                    i += 1;
                    continue;
                }
                (b'"', Expect::Value | Expect::ValueOrEnd) => {
                    let Some((string, end)) = string(text, i, &mut self.unescaped)? else {
                        return Ok(start);
                    };
                    i = end;
                    let sent = sink.string(string);
                    self.value_done();
                    sent
                }
                (b'"', Expect::Key | Expect::KeyOrEnd) => {
                    let Some((key, end)) = string(text, i, &mut self.unescaped)? else {
                        return Ok(start);
                    };
                    if let Some(seen) = &mut self.seen {
                        seen.insert(key).map_err(|reason| (start, reason))?;
                    }
                    i = end;
                    self.expect = Expect::Colon;
                    sink.key(key)
                }
                (b':', Expect::Colon) => {
                    i += 1;
                    self.expect = Expect::Value;
                    continue;
                }
                (b',', Expect::CommaOrEnd) => {
                    i += 1;
                    self.expect = if self.in_object() { Expect::Key } else { Expect::Value };
                    continue;
                }
                (b'-' | b'0'..=b'9', Expect::Value | Expect::ValueOrEnd) => {
                    let Some(end) = number(bytes, i, ended)? else {
                        return Ok(start);
                    };
                    i = end;
                    self.value_done();
                    sink.number(&text[start..end])
                }
                (b'{' | b'[', Expect::Value | Expect::ValueOrEnd) => {
                    if self.depth == DEPTH_MAX {
                        return Err((start, Reason::TooDeep));
                    }
                    i += 1;
                    if byte == b'{' {
                        self.objects |= 1 << self.depth;
                        self.expect = Expect::KeyOrEnd;
                        self.depth += 1;
                        if let Some(seen) = &mut self.seen {
                            seen.enter();
                        }
                        sink.begin_object()
                    } else {
                        self.objects &= !(1 << self.depth);
                        self.expect = Expect::ValueOrEnd;
                        self.depth += 1;
                        sink.begin_array()
                    }
                }
                (b'}', Expect::KeyOrEnd | Expect::CommaOrEnd) if self.in_object() => {
                    i += 1;
                    self.depth -= 1;
                    self.value_done();
                    if let Some(seen) = &mut self.seen {
                        seen.leave();
                    }
                    sink.end_object()
                }
                (b']', Expect::ValueOrEnd | Expect::CommaOrEnd) if !self.in_object() => {
                    i += 1;
                    self.depth -= 1;
                    self.value_done();
                    sink.end_array()
                }
                (b't' | b'f' | b'n', Expect::Value | Expect::ValueOrEnd) => {
                    let literal = match byte {
                        b't' => "true",
                        b'f' => "false",
                        _ => "null",
                    };
                    let rest = &bytes[i..];
                    if rest.starts_with(literal.as_bytes()) {
                        i += literal.len();
                    } else if !ended && literal.as_bytes().starts_with(rest) {
                        return Ok(start);
                    } else {
                        return Err((start, Reason::UnexpectedByte));
                    }
                    self.value_done();
                    if byte == b'n' { sink.null() } else { sink.bool(byte == b't') }
                }
                (0xEF, _) if text[i..].starts_with('\u{FEFF}') => return Err((start, Reason::ByteOrderMark)),
                _ => return Err((start, Reason::UnexpectedByte)),
            };
            sent.map_err(|reason| (start, reason))?;
        }
        Ok(i)
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn value_done(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }
}

fn at(base: usize, (place, reason): Flaw) -> JsonError {
    JsonError { offset: base + place, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::format::emit::Writer;
    use crate::pure::format::json::{Check, Json};

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        text: Option<String>,
        hex: Option<String>,
        #[serde(default)]
        accept: bool,
        reason: Option<String>,
        offset: Option<usize>,
    }

    impl Case {
        fn bytes(&self) -> Vec<u8> {
            match (&self.text, &self.hex) {
                (Some(text), None) => text.clone().into_bytes(),
                (None, Some(hex)) => data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap(),
                _ => panic!("{}: wants text or hex", self.name),
            }
        }
    }

    fn cases() -> Vec<Case> {
        serde_json::from_str(include_str!("../../../fixtures/formats/json_cases.json")).unwrap()
    }

    /// The document as indented JSON, fed in pieces of a size.
    fn read_in_pieces(json: &[u8], size: usize) -> Result<Vec<u8>, JsonError> {
        let mut sink = Json::new(true);
        let mut tokenizer = Tokenizer::new();
        for piece in json.chunks(size) {
            tokenizer.feed(piece, &mut sink)?;
        }
        tokenizer.finish(&mut sink)?;
        Ok(std::mem::take(sink.out()))
    }

    #[test]
    fn cases_are_accepted_and_rejected_as_rfc_8259_says() {
        let mut wrong = Vec::new();
        for case in cases() {
            let json = case.bytes();
            match read_in_pieces(&json, usize::MAX) {
                Ok(out) => {
                    if !case.accept {
                        wrong.push(format!("{}: accepted", case.name));
                    }
                    // Numbers beyond doubles are fine with us, but serde_json cannot hold them.
                    if let Ok(expected) = serde_json::from_slice::<serde_json::Value>(&json) {
                        assert_eq!(
                            serde_json::from_slice::<serde_json::Value>(&out).unwrap(),
                            expected,
                            "{}",
                            case.name
                        );
                    }
                }
                Err(error) => {
                    let offset = case.offset.unwrap_or(error.offset);
                    if case.reason != Some(error.reason.to_string()) || offset != error.offset {
                        wrong.push(format!("{}: {error}, not {:?} at {offset}", case.name, case.reason));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn pieces_of_any_size_read_as_the_whole() {
        for case in cases() {
            let json = case.bytes();
            let whole = read_in_pieces(&json, usize::MAX);
            for size in [1, 2, 3, 5, 7] {
                match (&whole, read_in_pieces(&json, size)) {
                    (Ok(whole), Ok(pieces)) => assert_eq!(&pieces, whole, "{} by {size}", case.name),
                    (Err(_), Err(_)) => {}
                    (whole, pieces) => panic!("{} by {size}: {pieces:?}, not {whole:?}", case.name),
                }
            }
        }
    }

    #[test]
    fn a_token_in_pieces_has_a_limit_and_a_whole_one_has_not() {
        let json = serde_json::to_vec(&"x".repeat(CARRY_BYTES_MAX)).unwrap();
        assert!(read_in_pieces(&json, usize::MAX).is_ok());
        let error = read_in_pieces(&json, 4096).unwrap_err();
        assert_eq!(error, JsonError { offset: 0, reason: Reason::TokenTooLong });
    }

    #[test]
    fn what_is_held_does_not_grow_with_the_document() {
        let mut tokenizer = Tokenizer::without_duplicates();
        let piece = br#"{"key":"a \"text\"","n":[1,2.5e3,null]},"#;
        tokenizer.feed(b"[", &mut Check).unwrap();
        for _ in 0..10_000 {
            for part in piece.chunks(9) {
                tokenizer.feed(part, &mut Check).unwrap();
            }
        }
        assert!(tokenizer.carry.capacity() < 64 && tokenizer.unescaped.capacity() < 64);
        assert!(tokenizer.seen.unwrap().len() < 8);
    }

    #[test]
    fn duplicate_keys_are_found_where_asked_for() {
        let find = |json: &str| read_without_duplicates(json.as_bytes(), &mut Check);
        let duplicate = |offset| Err(JsonError { offset, reason: Reason::DuplicateKey });
        assert_eq!(find(r#"{"a":1,"a":2}"#), duplicate(7));
        assert_eq!(find(r#"{"a":1,"\u0061":2}"#), duplicate(7));
        assert_eq!(find(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#), Ok(()));
        assert_eq!(find(r#"{"a":{"b":1},"b":2,"a":3}"#), duplicate(19));
        let many: Vec<String> = (0..1000).map(|i| format!("\"k{i}\":{i}")).collect();
        let many = many.join(",");
        assert_eq!(find(&format!("{{{many}}}")), Ok(()));
        assert_eq!(find(&format!("[{{{many}}},{{{many}}}]")), Ok(()));
        assert_eq!(find(&format!("{{{many},\"k3\":0}}")), duplicate(many.len() + 2));
        assert_eq!(find(&format!("{{{many},\"k999\":0}}")), duplicate(many.len() + 2));
    }

    #[test]
    fn keys_of_open_objects_are_remembered_up_to_a_limit() {
        let members = |count: usize| (0..count).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(",");
        let find = |json: &str| read_without_duplicates(json.as_bytes(), &mut Check).map_err(|error| error.reason);
        let half = members(KEYS_MAX / 2);
        assert_eq!(find(&format!("[{{{half}}},{{{half}}},{{{half}}}]")), Ok(()));
        assert_eq!(find(&format!("{{{half},\"in\":{{{half}}}}}")), Err(Reason::TooManyKeys));
        assert_eq!(find(&format!("{{{}}}", members(KEYS_MAX))), Ok(()));
        assert_eq!(find(&format!("{{{}}}", members(KEYS_MAX + 1))), Err(Reason::TooManyKeys));
    }
}
