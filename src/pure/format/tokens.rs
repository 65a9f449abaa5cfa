//! JSON bytes to events: a strict RFC 8259 reader that builds no tree and can be fed in pieces.
//!
//! What it holds is its place in the text (one byte a level), the one token that two pieces share, and one string with
//! escapes undone. It is stricter than many: no byte order mark, no lone surrogates, at most [`DEPTH_MAX`] levels.
//! Keys that come twice pass, unless it is made by [`Tokenizer::without_duplicates`].

use super::emit::Emit;
use super::lexemes::{Flaw, Specials, literal, number, string};
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

/// Reads one JSON text that comes in pieces of any size, however they are cut: the events are those of the whole text,
/// and so is the error.
pub struct Tokenizer {
    place: Place,
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

/// A place between two tokens.
#[derive(Clone, Copy)]
struct Place {
    expect: Expect,
    depth: usize,
    /// The innermost open container is an object.
    in_object: bool,
    /// The same of what each open container lies in, the outermost first.
    outer: [bool; DEPTH_MAX],
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

impl Tokenizer {
    /// Ready for the first piece.
    #[expect(clippy::new_without_default, reason = "a default tokenizer would hide which of the two kinds it is")]
    pub fn new() -> Self {
        Tokenizer {
            place: Place { expect: Expect::Value, depth: 0, in_object: false, outer: [false; DEPTH_MAX] },
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
                self.read_carry(true, sink)?;
                self.carry.clear();
            }
        }
        let rest = &piece[start..];
        let base = self.consumed + start;
        let cut = self.read(rest, base, false, sink)?;
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
        if let Some(&first) = self.carry.first() {
            // Of a string without its end, what there is may have a flaw.
            let ended = first != b'"';
            self.read_carry(ended, sink)?;
            if ended {
                self.carry.clear();
            }
        }
        if self.is_complete() { Ok(()) } else { Err(at(self.consumed, (0, Reason::UnexpectedEnd))) }
    }

    /// Bytes of all pieces so far.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// True once the document is complete: only white space may come.
    pub fn is_complete(&self) -> bool {
        self.place.expect == Expect::Nothing && self.carry.is_empty()
    }

    /// Where in a new piece the carried token ends; `None` when it goes on. Looks at each byte once, so that many small
    /// pieces cost no more than a large one. Beyond ASCII there are no tokens but strings; such a character goes with the
    /// token before it, so that it is whole when it is refused.
    fn carried_token_end(&mut self, piece: &[u8]) -> Option<usize> {
        if self.carry[0] != b'"' {
            let ends = |byte: &u8| byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte);
            return piece.iter().position(ends);
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

    /// Sends the carried token, if it is complete.
    fn read_carry(&mut self, ended: bool, sink: &mut impl Emit) -> Result<(), JsonError> {
        let carry = std::mem::take(&mut self.carry);
        self.read(&carry, self.carry_at, ended, sink)?;
        self.carry = carry;
        Ok(())
    }

    /// Reads on through `bytes`, which begin at `base` of the text, and answers where in them a token begins that their
    /// end cuts off, or their length. What is `ended` ends with a token: no number, literal or character goes on.
    fn read(&mut self, bytes: &[u8], base: usize, ended: bool, sink: &mut impl Emit) -> Result<usize, JsonError> {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return self.run(text, ended, sink).map_err(|flaw| at(base, flaw)),
            Err(error) => error,
        };
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let cut = self.run(valid, false, sink).map_err(|flaw| at(base, flaw))?;
        let goes_on = error.error_len().is_none() && !ended;
        if goes_on { Ok(cut) } else { Err(at(base, (valid.len(), Reason::InvalidUtf8))) }
    }

    /// Reads on through `text` as [`Tokenizer::read`] does. It is compiled for each kind of sink: one that wants no text
    /// costs none of what makes text out of tokens.
    fn run<S: Emit>(&mut self, text: &str, ended: bool, sink: &mut S) -> Result<usize, Flaw> {
        let bytes = text.as_bytes();
        let mut specials = Specials::new(bytes, 0);
        let unescaped = &mut self.unescaped;
        let mut seen = self.seen.as_mut();
        let wants_keys = S::TEXT || seen.is_some();
        let mut place = self.place;
        let mut i = 0;
        let cut = loop {
            let start = i;
            // A key, if one is due; then, in the same turn, what mostly follows it: its value.
            if matches!(place.expect, Expect::Key | Expect::KeyOrEnd) && bytes.get(i) == Some(&b'"') {
                let unescaped = wants_keys.then_some(&mut *unescaped);
                let Some((key, end)) = string(text, &mut specials, start, unescaped)? else { break start };
                if wants_keys {
                    let inserted = seen.as_mut().map_or(Ok(()), |seen| seen.insert(key));
                    inserted.and_then(|()| sink.key(key)).map_err(|reason| (start, reason))?;
                }
                i = end;
                place.expect = Expect::Colon;
                if bytes.get(i) != Some(&b':') {
                    continue;
                }
                i += 1;
                place.expect = Expect::Value;
            }
            let start = i;
            let Some(&byte) = bytes.get(i) else { break start };
            let sent = match place.expect {
                Expect::Value | Expect::ValueOrEnd => match byte {
                    b'"' => {
                        let unescaped = S::TEXT.then_some(&mut *unescaped);
                        let Some((string, end)) = string(text, &mut specials, i, unescaped)? else { break start };
                        i = place.value_done(bytes, end);
                        sink.string(string)
                    }
                    b'-' | b'0'..=b'9' => {
                        let Some(end) = number(bytes, i, ended)? else { break start };
                        i = place.value_done(bytes, end);
                        sink.number(if S::TEXT { &text[start..end] } else { "" })
                    }
                    b'{' | b'[' if place.depth == DEPTH_MAX => Err(Reason::TooDeep),
                    b'{' => {
                        i += 1;
                        place.enter(true);
                        if let Some(seen) = &mut seen {
                            seen.enter();
                        }
                        sink.begin_object()
                    }
                    b'[' => {
                        i += 1;
                        place.enter(false);
                        sink.begin_array()
                    }
                    b't' => {
                        let Some(end) = literal(bytes, i, b"true", ended)? else { break start };
                        i = place.value_done(bytes, end);
                        sink.bool(true)
                    }
                    b'f' => {
                        let Some(end) = literal(bytes, i, b"false", ended)? else { break start };
                        i = place.value_done(bytes, end);
                        sink.bool(false)
                    }
                    b'n' => {
                        let Some(end) = literal(bytes, i, b"null", ended)? else { break start };
                        i = place.value_done(bytes, end);
                        sink.null()
                    }
                    b']' if place.expect == Expect::ValueOrEnd => {
                        i = place.leave(bytes, i + 1);
                        sink.end_array()
                    }
                    _ => {
                        i = blank_end(text, i)?;
                        Ok(())
                    }
                },
                Expect::CommaOrEnd | Expect::KeyOrEnd if byte == b'}' && place.in_object => {
                    i = place.leave(bytes, i + 1);
                    if let Some(seen) = &mut seen {
                        seen.leave();
                    }
                    sink.end_object()
                }
                Expect::CommaOrEnd if byte == b']' && !place.in_object => {
                    i = place.leave(bytes, i + 1);
                    sink.end_array()
                }
                Expect::CommaOrEnd if byte == b',' => {
                    i = place.value_done(bytes, i);
                    Ok(())
                }
                Expect::Colon if byte == b':' => {
                    i += 1;
                    place.expect = Expect::Value;
                    Ok(())
                }
                _ => {
                    i = blank_end(text, i)?;
                    Ok(())
                }
            };
            sent.map_err(|reason| (start, reason))?;
        };
        self.place = place;
        Ok(cut)
    }
}

impl Place {
    fn enter(&mut self, object: bool) {
        self.expect = if object { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
        self.outer[self.depth] = std::mem::replace(&mut self.in_object, object);
        self.depth += 1;
    }

    /// The innermost container ends before `i`. Answers where to go on, as [`Place::value_done`] does.
    fn leave(&mut self, bytes: &[u8], i: usize) -> usize {
        self.depth -= 1;
        self.in_object = self.outer[self.depth];
        self.value_done(bytes, i)
    }

    /// A value ends before `i`. Answers where to go on: a comma mostly follows at once, and is taken together with it.
    fn value_done(&mut self, bytes: &[u8], i: usize) -> usize {
        if self.depth == 0 {
            self.expect = Expect::Nothing;
        } else if bytes.get(i) == Some(&b',') {
            self.expect = if self.in_object { Expect::Key } else { Expect::Value };
            return i + 1;
        } else {
            self.expect = Expect::CommaOrEnd;
        }
        i
    }
}

/// The end of the white space that begins at `i`, where nothing else may stand.
fn blank_end(text: &str, i: usize) -> Result<usize, Flaw> {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    match text.as_bytes()[i..].iter().take_while(is_blank).count() {
        0 if text[i..].starts_with('\u{FEFF}') => Err((i, Reason::ByteOrderMark)),
        0 => Err((i, Reason::UnexpectedByte)),
        blanks => Ok(i + blanks),
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
