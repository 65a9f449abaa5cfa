//! `Accept` header lines to the format of the answer (RFC 9110 section 12.5.1): one pass, no allocation, total.
//!
//! Clients send headers of every quality, so reading is tolerant where tolerance is harmless: an element that makes no
//! sense is passed over, and a header without one that does counts as no header at all.

use super::format::Format;

/// The most media ranges that are looked at; what follows them is not read.
const RANGES_MAX: u8 = 64;

/// What an answer will be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The format.
    pub format: Format,
    /// The value of `Content-Type`: the alias the caller asked for, or else the format's own media type.
    pub content_type: &'static str,
    /// Whether `application/problem+json` was asked for by name: errors are then RFC 9457.
    pub problem: bool,
}

impl Choice {
    /// The answer to a caller with no preference.
    pub const JSON: Choice = Choice { format: Format::Json, content_type: MEDIA[0].content_type, problem: false };

    /// The choice that a query parameter makes in place of `Accept`.
    pub fn of(format: Format) -> Choice {
        let media = MEDIA.iter().find(|media| media.format == format).unwrap_or(&MEDIA[0]);
        Choice { format, content_type: media.content_type, problem: false }
    }
}

/// Chooses the format for the `Accept` lines of a request, in their order; `None` when they exclude every format (406).
///
/// The most specific range decides the weight of a media type. Weight ranks first, then specificity, then the caller's
/// order, then ours. Structured syntax suffixes (`application/hal+json`) count only when nothing else matched.
pub fn choose<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Choice> {
    let Some(first) = lines.next() else { return Some(Choice::JSON) };
    let second = lines.next();
    if second.is_none()
        && let Some(choice) = choose_plain(first)
    {
        return Some(choice);
    }

    let mut tally = Tally::default();
    let mut left = RANGES_MAX;
    'lines: for line in std::iter::once(first).chain(second).chain(lines) {
        for element in split_unquoted(line, b',') {
            if left == 0 {
                break 'lines;
            }
            left -= 1;
            if let Some(range) = Range::parse(element) {
                tally.count(&range, RANGES_MAX - left);
            }
        }
    }
    tally.choice()
}

/// The choice of a header that says one media type of ours or `*/*`, and nothing else: most of them do.
fn choose_plain(line: &[u8]) -> Option<Choice> {
    if line == b"*/*" {
        return Some(Choice::JSON);
    }
    let media = MEDIA.iter().find(|media| media.name.as_bytes() == line)?;
    Some(Choice { format: media.format, content_type: media.content_type, problem: false })
}

/// Splits at `separator` outside quoted strings (RFC 9110 section 5.6.4); the pieces are trimmed, empty ones included.
pub(super) fn split_unquoted(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        let mut escaped = false;
        let end = line.iter().position(|&byte| {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            }
            byte == separator && !quoted
        });
        rest = end.map(|end| &line[end + 1..]);
        Some(line[..end.unwrap_or(line.len())].trim_ascii())
    })
}

/// Whether `text` is a token of RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

/// A media type that an answer can have.
struct Media {
    name: &'static str,
    format: Format,
    content_type: &'static str,
    /// Whether wildcards match it; an alias matches only when it is named.
    own: bool,
}

const fn own(name: &'static str, format: Format, content_type: &'static str) -> Media {
    Media { name, format, content_type, own: true }
}

const fn alias(name: &'static str, format: Format, content_type: &'static str) -> Media {
    Media { name, format, content_type, own: false }
}

/// Every media type, in our order of preference.
const MEDIA: [Media; 8] = [
    own("application/json", Format::Json, "application/json"),
    own("application/xml", Format::Xml, "application/xml"),
    own("application/yaml", Format::Yaml, "application/yaml"),
    own("text/csv", Format::Csv, "text/csv; charset=utf-8; header=present"),
    alias("text/xml", Format::Xml, "text/xml; charset=utf-8"),
    alias("application/x-yaml", Format::Yaml, "application/x-yaml"),
    alias("text/yaml", Format::Yaml, "text/yaml; charset=utf-8"),
    alias("text/x-yaml", Format::Yaml, "text/x-yaml; charset=utf-8"),
];

/// The structured syntax suffixes (RFC 6839, RFC 9512) and the media type each falls back to, as a row of [`MEDIA`].
const SUFFIXES: [(&[u8], usize); 3] = [(b"+json", 0), (b"+xml", 1), (b"+yaml", 2)];

/// One media range of the header.
struct Range<'a> {
    /// `type/subtype`, as sent.
    name: &'a [u8],
    /// Where in `name` the slash is.
    slash: usize,
    /// The weight in millionths.
    q: u32,
    /// Whether it carries parameters beside the weight. None of our media types has one to match.
    parameters: bool,
}

impl<'a> Range<'a> {
    fn parse(element: &'a [u8]) -> Option<Range<'a>> {
        let mut pieces = split_unquoted(element, b';');
        let mut name = pieces.next()?;
        if name == b"*" {
            name = b"*/*";
        }
        let slash = name.iter().position(|&byte| byte == b'/')?;
        let (main, sub) = (&name[..slash], &name[slash + 1..]);
        let wild_where_allowed = sub == b"*" || (main != b"*" && !sub.contains(&b'*'));
        if !is_token(main) || !is_token(sub) || !wild_where_allowed {
            return None;
        }

        let mut q = None;
        let mut parameters = false;
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let equals = piece.iter().position(|&byte| byte == b'=');
            let (key, value) = equals.map_or((piece, &b""[..]), |at| (&piece[..at], &piece[at + 1..]));
            if !key.trim_ascii().eq_ignore_ascii_case(b"q") {
                parameters = true;
            } else if q.is_none() {
                q = Some(weight(value.trim_ascii())?);
            }
        }
        Some(Range { name, slash, q: q.unwrap_or(WEIGHT_ONE), parameters })
    }

    /// How specifically the range names `media`; `None` when it does not.
    fn specificity(&self, media: &Media) -> Option<Specificity> {
        if self.name.eq_ignore_ascii_case(media.name.as_bytes()) {
            return Some(if self.parameters { Specificity::Parameters } else { Specificity::Exact });
        }
        let (main, sub) = (&self.name[..self.slash], &self.name[self.slash + 1..]);
        if !media.own || sub != b"*" {
            return None;
        }
        if main == b"*" {
            return Some(Specificity::Any);
        }
        let same_main = media.name.as_bytes().get(..=self.slash)?.eq_ignore_ascii_case(&self.name[..=self.slash]);
        same_main.then_some(Specificity::Type)
    }
}

const WEIGHT_ONE: u32 = 1_000_000;

/// Reads a weight: digits, a dot, digits, of any length, in millionths. More than 1 counts as 1, and a weight above 0 never
/// rounds down to it, for 0 means "not acceptable".
fn weight(text: &[u8]) -> Option<u32> {
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..dot], text.get(dot + 1..).unwrap_or_default());
    let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let is_positive = |digits: &[u8]| digits.iter().any(|&digit| digit != b'0');
    if is_positive(whole) {
        return Some(WEIGHT_ONE);
    }
    let digits = fraction.iter().map(|digit| u32::from(digit - b'0')).chain(std::iter::repeat(0));
    let millionths = digits.take(6).fold(0, |sum, digit| sum * 10 + digit);
    Some(if is_positive(fraction) { millionths.max(1) } else { 0 })
}

/// From the least to the most specific.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Suffix,
    Any,
    Type,
    Parameters,
    Exact,
}

/// The range that decides a media type's weight so far.
#[derive(Clone, Copy)]
struct Match {
    specificity: Specificity,
    q: u32,
    order: u8,
}

impl Match {
    /// Whether this range decides instead of `other`: it is more specific, or weighs more.
    fn overrules(&self, other: &Match) -> bool {
        (self.specificity, self.q) > (other.specificity, other.q)
    }

    /// What ranks one acceptable media type before another; larger is better.
    fn rank(&self) -> impl Ord {
        (self.q, self.specificity, std::cmp::Reverse(self.order))
    }
}

/// What the ranges read so far say about each media type.
#[derive(Default)]
struct Tally {
    named: [Option<Match>; MEDIA.len()],
    /// By suffix, for [`SUFFIXES`].
    suffixed: [Option<Match>; SUFFIXES.len()],
    any: bool,
    problem: bool,
}

impl Tally {
    fn count(&mut self, range: &Range<'_>, order: u8) {
        self.any = true;
        for (media, decided) in MEDIA.iter().zip(&mut self.named) {
            let Some(specificity) = range.specificity(media) else { continue };
            update(decided, Match { specificity, q: range.q, order });
        }
        for ((suffix, _), decided) in SUFFIXES.iter().zip(&mut self.suffixed) {
            let start = range.name.len().saturating_sub(suffix.len());
            if start > range.slash + 1 && range.name[start..].eq_ignore_ascii_case(suffix) {
                update(decided, Match { specificity: Specificity::Suffix, q: range.q, order });
            }
        }
        self.problem |= range.q > 0 && range.name.eq_ignore_ascii_case(b"application/problem+json");
    }

    fn choice(&self) -> Option<Choice> {
        if !self.any {
            return Some(Choice::JSON);
        }
        let named = MEDIA.iter().zip(&self.named);
        let suffixed = SUFFIXES.iter().zip(&self.suffixed).filter_map(|((_, row), decided)| {
            let refused = self.named[*row].is_some_and(|named| named.specificity >= Specificity::Parameters);
            (!refused).then_some((&MEDIA[*row], decided))
        });
        let (media, _) = best(named).or_else(|| best(suffixed))?;
        Some(Choice { format: media.format, content_type: media.content_type, problem: self.problem })
    }
}

fn update(decided: &mut Option<Match>, candidate: Match) {
    if decided.is_none_or(|decided| candidate.overrules(&decided)) {
        *decided = Some(candidate);
    }
}

/// The best acceptable media type; the first of equals, which is our order.
fn best<'m>(all: impl Iterator<Item = (&'m Media, &'m Option<Match>)>) -> Option<(&'m Media, Match)> {
    all.filter_map(|(media, decided)| decided.filter(|decided| decided.q > 0).map(|decided| (media, decided)))
        .reduce(|best, next| if next.1.rank() > best.1.rank() { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(lines: &[&str]) -> Option<Choice> {
        choose(lines.iter().map(|line| line.as_bytes()))
    }

    /// `format content-type` of what is chosen, or `406`.
    fn check(line: &str, expected: &str) {
        let found = chosen(&[line]).map_or("406", |choice| choice.content_type);
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn fixture_cases() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/formats/accept_cases.json");
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for case in &cases {
            let lines: Vec<&str> = case["accept"].as_str().into_iter().collect();
            let expected = case["policy"].as_str().map(|name| match name {
                "json" => Format::Json,
                "xml" => Format::Xml,
                "yaml" => Format::Yaml,
                _ => Format::Csv,
            });
            assert_eq!(chosen(&lines).map(|choice| choice.format), expected, "{}", case["id"]);
        }
        assert_eq!(cases.len(), 36);
    }

    #[test]
    fn aliases_are_echoed_and_match_only_by_name() {
        check("text/xml", "text/xml; charset=utf-8");
        check("TEXT/YAML", "text/yaml; charset=utf-8");
        check("application/x-yaml, application/json;q=0.9", "application/x-yaml");
        check("text/*", "text/csv; charset=utf-8; header=present");
        check("text/xml;q=0, */*", "application/json");
        check("application/xml;q=0, text/xml", "text/xml; charset=utf-8");
    }

    #[test]
    fn suffixes_are_the_last_resort() {
        check("application/vnd.api+json", "application/json");
        check("application/atom+xml, application/ld+json;q=0.9", "application/xml");
        check("application/vnd.x+yaml, text/csv;q=0.1", "text/csv; charset=utf-8; header=present");
        check("application/vnd.x+yaml;q=0", "406");
        check("application/json;q=0, application/problem+json", "406");
        check("application/+json", "406");
        check("application/*+json", "application/json");
    }

    #[test]
    fn problem_details_are_a_matter_of_their_own() {
        assert!(chosen(&["application/problem+json, application/xml"]).unwrap().problem);
        assert!(!chosen(&["application/problem+json;q=0, application/xml"]).unwrap().problem);
        assert!(!chosen(&["*/*"]).unwrap().problem);
    }

    #[test]
    fn lines_are_one_list_and_the_list_ends() {
        assert_eq!(chosen(&["text/csv;q=0.5", "application/yaml"]).unwrap().format, Format::Yaml);
        assert_eq!(chosen(&["application/json", "application/json;q=0"]).unwrap().format, Format::Json);
        let late = format!("{}application/xml", "image/png,".repeat(RANGES_MAX.into()));
        assert_eq!(chosen(&[&late]), None);
        let noise = format!("{}application/xml", ",".repeat(RANGES_MAX.into()));
        assert_eq!(chosen(&[&noise]), Some(Choice::JSON));
    }

    #[test]
    fn weights() {
        let rows: [(&str, Option<u32>); 12] = [
            ("1", Some(WEIGHT_ONE)),
            ("0.5", Some(500_000)),
            (".5", Some(500_000)),
            ("1.", Some(WEIGHT_ONE)),
            ("7", Some(WEIGHT_ONE)),
            ("0.00000000001", Some(1)),
            ("0.0000000000", Some(0)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("\"0.5\"", None),
        ];
        for (text, expected) in rows {
            assert_eq!(weight(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn every_format_can_be_chosen_by_name() {
        for format in [Format::Json, Format::Xml, Format::Yaml, Format::Csv] {
            assert_eq!(Choice::of(format).format, format);
            check(Choice::of(format).content_type, Choice::of(format).content_type);
        }
        assert_eq!(Choice::of(Format::Json), Choice::JSON);
    }

    const RANGES: [&str; 10] = [
        "application/json",
        "application/xml",
        "application/yaml",
        "text/csv",
        "application/*",
        "text/*",
        "*/*",
        "text/html",
        "image/png",
        "image/*",
    ];

    proptest! {
        #[test]
        fn agrees_with_the_oracle_on_well_formed_headers(
            ranges in prop::sample::subsequence(&RANGES[..], 1..RANGES.len()).prop_shuffle(),
            weights in prop::collection::vec(0..=10u32, RANGES.len()),
            spaces in prop::sample::select(vec![",", ", ", " , "]),
        ) {
            let weigh = |(range, q): (&&str, &u32)| match q {
                10 => (*range).to_string(),
                q => format!("{range};q=0.{q}"),
            };
            let header = ranges.iter().zip(&weights).map(weigh).collect::<Vec<_>>().join(spaces);
            let provided = ["application/json", "application/xml", "application/yaml", "text/csv"];
            let expected = negotiator::preferred_media_types(Some(&header), Some(&provided));
            let found = chosen(&[&header]).map(|choice| choice.content_type.split(';').next().unwrap());
            prop_assert_eq!(found, expected.first().map(String::as_str), "{}", header);
        }

        #[test]
        fn any_bytes_are_answered(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)) {
            choose(lines.iter().map(Vec::as_slice));
        }

        #[test]
        fn any_near_miss_is_answered(line in "([a-z*/;,=q.0-9\" \\\\]|application/(json|xml)|;q=){0,30}") {
            chosen(&[&line]);
        }
    }
}
