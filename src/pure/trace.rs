//! The trace that a call is part of, as W3C Trace Context says it in `traceparent`.

use std::fmt;

use data_encoding::HEXLOWER;

/// The id of a trace: 32 lower-case hexadecimal digits, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

/// The id of a span, a step of a trace: 16 lower-case hexadecimal digits, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 16]);

/// Where in a trace a call comes from. Shown as a `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the caller.
    pub span_id: SpanId,
    /// Whether the caller may have recorded it.
    pub sampled: bool,
}

impl TraceParent {
    /// Of these ids, neither of which may be zero.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> TraceParent {
        let (mut trace, mut span) = ([0; 32], [0; 16]);
        HEXLOWER.encode_mut(&trace_id, &mut trace);
        HEXLOWER.encode_mut(&span_id, &mut span);
        TraceParent { trace_id: TraceId(trace), span_id: SpanId(span), sampled }
    }

    /// Reads a `traceparent` header (W3C Trace Context, section 3.2); `None` for what is none.
    ///
    /// Of versions to come, only what all have in common is read, as section 3.2.4 wants it.
    pub fn parse(header: &[u8]) -> Option<TraceParent> {
        let (known, more) = header.split_at_checked(55)?;
        let [version, trace, parent, flags] = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
        let is_hex = |field: &[u8]| field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |field: &[u8]| field.iter().all(|byte| *byte == b'0');
        let hyphens = [known[2], known[35], known[52]] == *b"---";
        let fields = [version, trace, parent, flags].into_iter().all(is_hex) && !is_zero(trace) && !is_zero(parent);
        let end = match version {
            b"ff" => false,
            b"00" => more.is_empty(),
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        let (trace_id, span_id) = (TraceId(trace.try_into().ok()?), SpanId(parent.try_into().ok()?));
        // The lowest bit of the two digits; the others are no business of ours.
        let sampled = matches!(flags[1], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
        (hyphens && fields && end).then_some(TraceParent { trace_id, span_id, sampled })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace_id.as_str(), self.span_id.as_str(), u8::from(self.sampled))
    }
}

impl TraceId {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl SpanId {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_well_formed_is_read() {
        let later = format!("cc{}-what-the-future-will-be-like", &PARENT[2..]);
        for header in [PARENT, &later, &later[..55]] {
            let TraceParent { trace_id, span_id, sampled } = TraceParent::parse(header.as_bytes()).unwrap();
            assert_eq!(trace_id.as_str(), "4bf92f3577b34da6a3ce929d0e0e4736", "{header}");
            assert_eq!((span_id.as_str(), sampled), ("00f067aa0ba902b7", true), "{header}");
        }
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("fe", false), ("ff", true)] {
            let header = format!("{}{flags}", &PARENT[..53]);
            assert_eq!(TraceParent::parse(header.as_bytes()).unwrap().sampled, sampled, "{header}");
        }
    }

    #[test]
    fn what_is_made_is_well_formed() {
        for (sampled, flags) in [(true, "01"), (false, "00")] {
            let made = TraceParent::new(0xab_u128.to_be_bytes(), 0xcd_u64.to_be_bytes(), sampled);
            assert_eq!(made.to_string(), format!("00-{:032x}-{:016x}-{flags}", 0xab, 0xcd));
            assert_eq!(TraceParent::parse(made.to_string().as_bytes()), Some(made));
        }
    }

    #[test]
    fn anything_else_is_none() {
        let zero_id = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let forms = [
            "",
            &PARENT[..54],
            &format!("{PARENT}-00"),
            &format!("{PARENT}."),
            &PARENT.replace("4bf9", "4BF9"),
            &PARENT.replace("4bf9", "4bg9"),
            &PARENT.replace("4bf9", "4b\r9"),
            &PARENT.replace('-', "_"),
            &PARENT.replace("00-4", "ff-4"),
            &format!("cc{}.", &PARENT[2..]),
            &zero_id,
            &zero_parent,
        ];
        for header in forms {
            assert_eq!(TraceParent::parse(header.as_bytes()), None, "{header}");
        }
    }
}
