//! An upstream's JSON, which comes in pieces, to the answer in the caller's format.
//!
//! Nothing of the text is kept that has been written, so that memory does not grow with it. Where a format has to wait, a
//! named limit says for how much: [`PREFIX_BYTES_MAX`](envelope::PREFIX_BYTES_MAX) to know whether the text is in the
//! envelope already, [`CARRY_BYTES_MAX`](super::format::tokens::CARRY_BYTES_MAX) for a token,
//! [`WINDOW_BYTES`](super::format::csv::WINDOW_BYTES) for the columns of a table,
//! [`ROW_BYTES_MAX`](super::format::csv::ROW_BYTES_MAX) for a row,
//! [`NAMES_BYTES_MAX`](super::format::xml::NAMES_BYTES_MAX) for the open elements of XML and
//! [`KEYS_MAX`](super::format::tokens::KEYS_MAX) for the keys that YAML must not see twice.

use super::envelope::{self, BYTE_ORDER_MARK, Dialect, Prefix};
use super::format::csv::Csv;
use super::format::emit::Writer;
use super::format::json::{Check, Json};
use super::format::tokens::Tokenizer;
use super::format::xml::Xml;
use super::format::yaml::Yaml;
use super::format::{Format, JsonError, Reason, Style};
use super::pointer::Pointer;
use select::Select;

mod select;

/// How much to feed at a time, in bytes, draining the output in between. A piece mostly becomes one to three times its
/// size, but indents, empty cells and joined keys can make much more of one that is meant to.
pub const PIECE_BYTES: usize = 8 << 10;
/// Room for what stands around the data in any format, in bytes.
const AROUND_BYTES: usize = 160;

/// Writes one JSON text as an answer.
///
/// Nothing is appended to the output before there is something of `data`: until then a flaw of the text can still be told
/// in an answer of its own.
pub struct Transcoder {
    dialect: Dialect,
    format: Format,
    style: Style,
    pointer: Option<Pointer>,
    bytes_max: usize,
    /// Bytes taken so far, a byte order mark left out.
    taken: usize,
    /// How much of a byte order mark has come; `None` once the text itself has begun.
    mark: Option<usize>,
    /// Finds out whether the text is in the envelope already, and what came until that is known.
    prefix: Prefix,
    held: Vec<u8>,
    /// What reads the text, once that is known.
    reader: Option<Box<dyn Reader>>,
}

impl Transcoder {
    /// Ready for the first piece.
    ///
    /// - The enveloped dialect makes the text the `data` of the envelope, unless it is in the envelope already, which is
    ///   looked for only where there is no pointer; CSV is `data` alone. The flat dialect writes the text as it is.
    /// - Only what lies at the `pointer` is written. The rest is checked all the same, and an object on the way to the
    ///   place must not have the same key twice.
    /// - At most `bytes_max` bytes are taken.
    ///
    /// JSON without a pointer and without `pretty` is copied as it came, and otherwise written compactly or indented. YAML
    /// refuses keys that come twice anywhere in the text.
    pub fn new(
        dialect: Dialect,
        format: Format,
        style: Style,
        pointer: Option<Pointer>,
        bytes_max: usize,
    ) -> Transcoder {
        let prefix = Prefix::new();
        let mut transcoder = Transcoder {
            dialect,
            format,
            style,
            pointer,
            bytes_max,
            taken: 0,
            mark: Some(0),
            prefix,
            held: Vec::new(),
            reader: None,
        };
        if dialect == Dialect::Flat || transcoder.pointer.is_some() {
            transcoder.reader = Some(transcoder.reader_of(false));
        }
        transcoder
    }

    /// Takes the next piece, and appends what it makes to `out`.
    ///
    /// # Errors
    /// Where the text is not JSON, is too long or has no form in the format; see [`Reason`]. The transcoder is of no more
    /// use then, and what this call has appended has to be thrown away.
    pub fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        if let Some(come) = self.mark {
            let rest = &BYTE_ORDER_MARK[come..];
            let more = rest.iter().zip(piece).take_while(|(mark, byte)| mark == byte).count();
            if more == piece.len() && more < rest.len() {
                self.mark = Some(come + more);
                return Ok(());
            }
            self.mark = None;
            if more == rest.len() {
                piece = &piece[more..];
            } else if come > 0 {
                // It was none.
                self.feed(&BYTE_ORDER_MARK[..come], out)?;
            }
        }
        self.taken += piece.len();
        if self.taken > self.bytes_max {
            return Err(JsonError { offset: self.bytes_max, reason: Reason::TooLong });
        }
        if self.reader.is_none() {
            match self.prefix.feed(piece) {
                Some(enveloped) => self.begin(enveloped, out)?,
                None => self.held.extend_from_slice(piece),
            }
        }
        self.read(piece, out)
    }

    /// The text has ended: appends the rest to `out`, which may be nothing.
    ///
    /// # Errors
    /// When the text is not complete, has nothing at the pointer or, for want of its end before, has no form in the format.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if let Some(come @ 1..) = self.mark.take() {
            self.feed(&BYTE_ORDER_MARK[..come], out)?;
        }
        if self.reader.is_none() {
            self.begin(false, out)?;
        }
        self.reader.map_or(Ok(()), |mut reader| reader.finish(out))
    }

    /// Goes on to reading, beginning with what was held.
    fn begin(&mut self, enveloped: bool, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.reader = Some(self.reader_of(enveloped));
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { self.read(&held, out) }
    }

    fn read(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        out.reserve(piece.len() + AROUND_BYTES);
        reader.feed(piece, out)
    }

    /// What reads a text that is `enveloped` already or not.
    fn reader_of(&mut self, enveloped: bool) -> Box<dyn Reader> {
        let wrap = envelope::wraps(self.dialect, self.format) && !enveloped;
        let pointer = match self.pointer.take() {
            None if enveloped && self.format == Format::Csv => Some(envelope::data()),
            pointer => pointer,
        };
        let tokenizer = Tokenizer::new();
        match self.format {
            Format::Json if pointer.is_none() && !self.style.pretty => Box::new(Splice::new(tokenizer, wrap)),
            Format::Json => Selecting::boxed(tokenizer, Json::new(self.style.pretty), pointer, wrap),
            Format::Xml => Selecting::boxed(tokenizer, Xml::default(), pointer, wrap),
            Format::Yaml => Selecting::boxed(Tokenizer::without_duplicates(), Yaml::default(), pointer, wrap),
            Format::Csv => Selecting::boxed(tokenizer, Csv::new(self.style.csv_guard), pointer, wrap),
        }
    }
}

/// The way of a text to one format.
trait Reader: Send {
    fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError>;
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError>;
}

/// Events of the part that is asked for, to a writer.
struct Selecting<W> {
    tokenizer: Tokenizer,
    select: Select<W>,
}

impl<W: Writer + Send + 'static> Selecting<W> {
    fn boxed(tokenizer: Tokenizer, writer: W, pointer: Option<Pointer>, wrap: bool) -> Box<dyn Reader> {
        let select = Select::new(writer, pointer.unwrap_or_default(), wrap);
        Box::new(Selecting { tokenizer, select })
    }
}

impl<W: Writer + Send> Reader for Selecting<W> {
    fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.select.write_to(out, |select| self.tokenizer.feed(piece, select))
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.select.write_to(out, |select| {
            self.tokenizer.finish(select)?;
            select.finish().map_err(|reason| at_end(&self.tokenizer, reason))
        })
    }
}

/// The bytes themselves, once they are checked, without the white space around them.
struct Splice {
    tokenizer: Tokenizer,
    /// Writes the envelope, if there is to be one.
    json: Json,
    wrap: bool,
    begun: bool,
}

impl Splice {
    fn new(tokenizer: Tokenizer, wrap: bool) -> Splice {
        Splice { tokenizer, json: Json::new(false), wrap, begun: false }
    }
}

impl Reader for Splice {
    fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.tokenizer.feed(piece, &mut Check)?;
        let mut text = piece;
        if self.tokenizer.is_complete() {
            text = text.trim_ascii_end();
        }
        if !self.begun {
            text = text.trim_ascii_start();
        }
        if text.is_empty() {
            return Ok(());
        }
        if self.wrap && !self.begun {
            let opened = self.json.write_to(out, envelope::open);
            opened.map_err(|reason| at_end(&self.tokenizer, reason))?;
        }
        self.begun = true;
        out.extend_from_slice(text);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.tokenizer.finish(&mut Check)?;
        if !self.wrap {
            return Ok(());
        }
        let closed = self.json.write_to(out, envelope::close);
        closed.map_err(|reason| at_end(&self.tokenizer, reason))
    }
}

/// A reason that lies in no single place.
fn at_end(tokenizer: &Tokenizer, reason: Reason) -> JsonError {
    JsonError { offset: tokenizer.consumed(), reason }
}

#[cfg(test)]
mod tests;
