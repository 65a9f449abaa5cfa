//! The two kinds of JSON token that have a grammar of their own: strings and numbers.

use super::Reason;

/// Place and reason of an error, the place counted from the start of the text at hand.
pub(super) type Flaw = (usize, Reason);

/// Reads the string whose opening quote is at `open`: its text, and the place after the closing quote. `None` when the
/// end cuts it off.
pub(super) fn string<'a>(
    text: &'a str,
    open: usize,
    unescaped: &'a mut String,
) -> Result<Option<(&'a str, usize)>, Flaw> {
    let bytes = text.as_bytes();
    let mut start = open + 1;
    let mut i = plain_until(bytes, start);
    if bytes.get(i) == Some(&b'"') {
        return Ok(Some((&text[start..i], i + 1)));
    }
    unescaped.clear();
    loop {
        unescaped.push_str(&text[start..i]);
        match bytes.get(i) {
            None => return Ok(None),
            Some(b'"') => return Ok(Some((unescaped, i + 1))),
            Some(b'\\') => {
                let Some((character, end)) = escape(bytes, i)? else { return Ok(None) };
                unescaped.push(character);
                start = end;
            }
            Some(_) => return Err((i, Reason::ControlCharacter)),
        }
        i = plain_until(bytes, start);
    }
}

/// The end of the number that starts at `i` (RFC 8259 section 6). `None` when the end of the bytes may cut it off.
pub(super) fn number(bytes: &[u8], i: usize, ended: bool) -> Result<Option<usize>, Flaw> {
    let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |from: usize| match digits(from) {
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

/// The first place from `i` on that holds a quote, a backslash or a control character, or the end.
fn plain_until(bytes: &[u8], mut i: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    // Eight bytes at a time. A borrow makes false hits only above a true one, and the lowest hit is what counts.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    while let Some(eight) = bytes[i..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let hits = zero(word ^ QUOTES) | zero(word ^ BACKSLASHES) | control;
        if hits != 0 {
            return i + hits.trailing_zeros() as usize / 8;
        }
        i += 8;
    }
    i + bytes[i..].iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count()
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
