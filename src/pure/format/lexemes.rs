//! The two kinds of JSON token that have a grammar of their own: strings and numbers.

use super::Reason;

/// Place and reason of an error, the place counted from the start of the text at hand.
pub(super) type Flaw = (usize, Reason);

/// Finds what ends the plain part of a string: quotes, backslashes and control characters. It looks at 64 bytes at once,
/// which the compiler turns into a few vector instructions, and remembers what it saw there.
pub(super) struct Specials<'a> {
    bytes: &'a [u8],
    /// Where the 64 bytes begin that were looked at last.
    start: usize,
    /// A bit for each of them, the lowest for the first.
    found: u64,
}

impl<'a> Specials<'a> {
    /// Those of `bytes` from `start` on.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Specials<'a> {
        Specials { bytes, start, found: specials_of_64(&bytes[start..]) }
    }

    /// The first that lies at `i` or after it, or the end. Asked for one place after another.
    #[inline(always)]
    fn from(&mut self, mut i: usize) -> usize {
        loop {
            if i >= self.start + 64 {
                (self.start, self.found) = (i, specials_of_64(&self.bytes[i..]));
            }
            let found = self.found >> (i - self.start);
            if found != 0 {
                return i + found.trailing_zeros() as usize;
            }
            i = self.start + 64;
        }
    }
}

/// A bit for each of the first 64 bytes: whether it is special. What lies beyond the end counts as special.
#[inline(never)]
fn specials_of_64(bytes: &[u8]) -> u64 {
    let of_block = |block: [u8; 64]| {
        let special = block.map(|byte| if (byte < 0x20) | (byte == b'"') | (byte == b'\\') { 0xFF } else { 0 });
        // Leaves another bit of each of eight bytes, and adds them up in the highest.
        let bits = |eight: &[u8; 8]| {
            (u64::from_le_bytes(*eight) & 0x8040_2010_0804_0201).wrapping_mul(0x0101_0101_0101_0101) >> 56
        };
        special.as_chunks().0.iter().rev().fold(0, |found, eight| found << 8 | bits(eight))
    };
    if let Some(block) = bytes.first_chunk() {
        return of_block(*block);
    }
    let mut block = [0; 64];
    block[..bytes.len()].copy_from_slice(bytes);
    of_block(block)
}

/// Reads the string whose opening quote is at `open`: its text, and the place after the closing quote. `None` when the
/// end cuts it off. Escapes are undone in `unescaped`; without one they are only checked, and the text is empty.
#[inline(always)]
pub(super) fn string<'a>(
    text: &'a str,
    specials: &mut Specials,
    open: usize,
    unescaped: Option<&'a mut String>,
) -> Result<Option<(&'a str, usize)>, Flaw> {
    let start = open + 1;
    let end = specials.from(start);
    if text.as_bytes().get(end) != Some(&b'"') {
        return unplain_string(text, start, end, unescaped);
    }
    Ok(Some((if unescaped.is_some() { &text[start..end] } else { "" }, end + 1)))
}

/// Reads a string on from `i`, the first place that is not plain.
#[inline(never)]
fn unplain_string<'a>(
    text: &'a str,
    mut start: usize,
    mut i: usize,
    mut unescaped: Option<&'a mut String>,
) -> Result<Option<(&'a str, usize)>, Flaw> {
    let bytes = text.as_bytes();
    let mut specials = Specials::new(bytes, i);
    if let Some(unescaped) = &mut unescaped {
        unescaped.clear();
    }
    loop {
        if let Some(unescaped) = &mut unescaped {
            unescaped.push_str(&text[start..i]);
        }
        match bytes.get(i) {
            None => return Ok(None),
            Some(b'"') => return Ok(Some((unescaped.map_or("", |unescaped| unescaped), i + 1))),
            Some(b'\\') => {
                let Some((character, end)) = escape(bytes, i)? else { return Ok(None) };
                if let Some(unescaped) = &mut unescaped {
                    unescaped.push(character);
                }
                start = end;
            }
            Some(_) => return Err((i, Reason::ControlCharacter)),
        }
        i = specials.from(start);
    }
}

/// The end of the number that starts at `i` (RFC 8259 section 6). `None` when the end of the bytes may cut it off.
#[inline(always)]
pub(super) fn number(bytes: &[u8], i: usize, ended: bool) -> Result<Option<usize>, Flaw> {
    let some_digits = |from: usize| match digits_until(bytes, from) {
        end if end > from => Ok(Some(end)),
        end if end == bytes.len() && !ended => Ok(None),
        end => Err((end, Reason::InvalidNumber)),
    };
    let whole = if bytes[i] == b'-' { i + 1 } else { i };
    let Some(mut end) = some_digits(whole)? else { return Ok(None) };
    if bytes[whole] == b'0' && end > whole + 1 {
        return Err((whole + 1, Reason::InvalidNumber));
    }
    if bytes.get(end) == Some(&b'.') {
        match some_digits(end + 1)? {
            Some(fraction) => end = fraction,
            None => return Ok(None),
        }
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        match some_digits(end + 1 + usize::from(sign))? {
            Some(exponent) => end = exponent,
            None => return Ok(None),
        }
    }
    Ok(if end == bytes.len() && !ended { None } else { Some(end) })
}

/// The first place from `i` on that holds no digit, or the end. Numbers are short: one byte after another is quickest.
#[inline(always)]
fn digits_until(bytes: &[u8], mut i: usize) -> usize {
    while bytes.get(i).is_some_and(u8::is_ascii_digit) {
        i += 1;
    }
    i
}

/// The end of the literal `name`, if that is what starts at `i`. `None` when the end of the bytes may cut it off.
#[inline(always)]
pub(super) fn literal(bytes: &[u8], i: usize, name: &[u8], ended: bool) -> Result<Option<usize>, Flaw> {
    let rest = &bytes[i..];
    if rest.starts_with(name) {
        Ok(Some(i + name.len()))
    } else if !ended && name.starts_with(rest) {
        Ok(None)
    } else {
        Err((i, Reason::UnexpectedByte))
    }
}

/// Reads the escape whose backslash is at `i`: its character and the place after it. `None` when the end cuts it off.
fn escape(bytes: &[u8], i: usize) -> Result<Option<(char, usize)>, Flaw> {
    let Some(letter) = bytes.get(i + 1) else { return Ok(None) };
    let character = match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, i),
        _ => return Err((i, Reason::InvalidEscape)),
    };
    Ok(Some((character, i + 2)))
}

/// Reads `\uXXXX` at `i`, or the two of a surrogate pair.
fn unicode_escape(bytes: &[u8], i: usize) -> Result<Option<(char, usize)>, Flaw> {
    let Some(first) = hex4(bytes, i + 2)? else { return Ok(None) };
    let lone = (i, Reason::LoneSurrogate);
    if !(0xD800..0xE000).contains(&first) {
        return Ok(Some((char::from_u32(first).ok_or(lone)?, i + 6)));
    }
    if first >= 0xDC00
        || bytes.get(i + 6).is_some_and(|&byte| byte != b'\\')
        || bytes.get(i + 7).is_some_and(|&byte| byte != b'u')
    {
        return Err(lone);
    }
    let Some(second) = hex4(bytes, i + 8)? else { return Ok(None) };
    if !(0xDC00..0xE000).contains(&second) {
        return Err(lone);
    }
    let character = char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or(lone)?;
    Ok(Some((character, i + 12)))
}

/// Four hexadecimal digits at `i`; `None` when the end cuts them off.
fn hex4(bytes: &[u8], i: usize) -> Result<Option<u32>, Flaw> {
    let mut code = 0;
    for place in i..i + 4 {
        let Some(&byte) = bytes.get(place) else { return Ok(None) };
        let digit = char::from(byte).to_digit(16).ok_or((place, Reason::InvalidEscape))?;
        code = code << 4 | digit;
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_plain_part_of_a_string_is_found_in_every_place() {
        for (before, length) in (0..70).flat_map(|before| (0..140).map(move |length| (before, length))) {
            let plain = "é".repeat(length / 2) + if length % 2 == 1 { "\u{7f}" } else { "" };
            let start = before + 1;
            for (end, expected) in [
                ("\",\"", Ok(Some((plain.as_str(), start + length + 1)))),
                ("", Ok(None)),
                ("\\", Ok(None)),
                ("\u{1f}\"", Err((start + length, Reason::ControlCharacter))),
                ("\\q\"", Err((start + length, Reason::InvalidEscape))),
            ] {
                let text = format!("{}\"{plain}{end}", " ".repeat(before));
                let mut unescaped = String::new();
                let read = string(&text, &mut Specials::new(text.as_bytes(), 0), before, Some(&mut unescaped));
                assert_eq!(read, expected, "{text:?}");
                let checked = string(&text, &mut Specials::new(text.as_bytes(), 0), before, None);
                assert_eq!(checked, expected.map(|some| some.map(|(_, end)| ("", end))), "{text:?}");
            }
        }
    }
}
