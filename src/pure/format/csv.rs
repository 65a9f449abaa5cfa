//! CSV: RFC 4180 with a header, quoted by csv-core.
//!
//! - An object is the header `key,value` and a row for each leaf. The key of a nested leaf is all keys on the way to it,
//!   joined with `.`; places in arrays count from 0; a `.` in a key is written `\.` and a `\` as `\\`.
//! - An array is a table of a row for each item. An object's or array's leaves are cells of the columns that their joined
//!   keys name, a scalar's column is `value`. The header is all columns, in order of first sight.
//! - A scalar is a table of one column, `value`, and one row.
//!
//! Null, an empty string and an empty container are an empty cell alike. A key that comes twice is two rows, or in a table
//! the last of the two. A table wants two readings of the document: the first finds the columns.

use std::collections::HashMap;
use std::ops::Range;

use super::Reason;
use super::emit::{Emit, Emitted};

/// The most columns of a table.
pub const COLUMNS_MAX: usize = 1_000;
/// The most cells of a table, empty ones included: a few wide rows must not blow up many narrow ones.
pub const CELLS_MAX: usize = 4_000_000;
/// The longest joined key, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// The most bytes of joined keys in all rows of an object: they repeat what the document says once.
pub const PATHS_BYTES_MAX: usize = 64 << 20;

/// Writes CSV as events come; of a document that is an array, in the second of two readings.
pub struct Csv<'a> {
    out: &'a mut Vec<u8>,
    guard: bool,
    layout: Layout,
    /// The joined keys down to the value that comes next.
    path: String,
    /// Bytes of joined keys so far.
    paths_bytes: usize,
    open: Vec<Open>,
    table: Table,
}

/// What the document turned out to be.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// Nothing has come yet.
    Unknown,
    /// An object: a row for each leaf.
    Leaves,
    /// An array in its first reading.
    Columns,
    /// An array in its second reading.
    Rows,
}

/// An open container.
struct Open {
    /// Where its own path ends.
    path_end: usize,
    /// Members so far.
    count: usize,
    array: bool,
}

#[derive(Default)]
struct Table {
    places: HashMap<String, usize, ahash::RandomState>,
    names: Vec<String>,
    /// Where the next leaf lies if this row is like the one before.
    likely: usize,
    rows: usize,
    /// The present row: what its cells hold, quoted, and where in it each column's lies.
    text: Vec<u8>,
    cells: Vec<Range<usize>>,
}

impl<'a> Csv<'a> {
    /// Appends to `out`. `guard` is [`super::Style::csv_guard`].
    pub fn new(out: &'a mut Vec<u8>, guard: bool) -> Self {
        let (path, open) = (String::new(), Vec::new());
        Csv { out, guard, layout: Layout::Unknown, path, paths_bytes: 0, open, table: Table::default() }
    }

    /// Ends the first reading. True when the document is an array: its columns are known and its header written now, and
    /// its events have to come a second time.
    ///
    /// # Errors
    /// When the table has more than [`CELLS_MAX`] cells.
    pub fn begin_rows(&mut self) -> Result<bool, Reason> {
        if self.layout != Layout::Columns {
            return Ok(false);
        }
        if self.table.names.is_empty() {
            self.table.column(VALUE)?;
        }
        if self.table.names.len() * self.table.rows > CELLS_MAX {
            return Err(Reason::TooManyCells);
        }
        self.table.cells = vec![0..0; self.table.names.len()];
        for (i, name) in self.table.names.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            push_text(name, self.guard, self.out);
        }
        self.end_line(self.table.names.len() == 1 && self.table.names[0].is_empty());
        self.layout = Layout::Rows;
        Ok(true)
    }

    /// The leaf that the path leads to.
    fn leaf(&mut self, text: &str, guard: bool) -> Emitted {
        self.enter_member()?;
        match self.layout {
            Layout::Unknown => {
                self.out.extend_from_slice(b"value\r\n");
                push_text(text, guard, self.out);
                self.end_line(text.is_empty());
            }
            Layout::Leaves => {
                self.paths_bytes += self.path.len();
                if self.paths_bytes > PATHS_BYTES_MAX {
                    return Err(Reason::PathTooLong);
                }
                push_text(&self.path, self.guard, self.out);
                self.out.push(b',');
                push_text(text, guard, self.out);
                self.end_line(false);
            }
            Layout::Columns => {
                let path = if self.open.len() == 1 { VALUE } else { &self.path };
                self.table.column(path)?;
            }
            Layout::Rows => {
                let path = if self.open.len() == 1 { VALUE } else { &self.path };
                let column = self.table.column(path)?;
                let start = self.table.text.len();
                push_text(text, guard, &mut self.table.text);
                // A document that changes between its readings may name a column that is not in the header.
                *self.table.cells.get_mut(column).ok_or(Reason::NotSerializable)? = start..self.table.text.len();
            }
        }
        self.member_done();
        Ok(())
    }

    /// Extends the path to the next item of an array; that of a member was its key.
    fn enter_member(&mut self) -> Emitted {
        let in_table = self.layout != Layout::Leaves;
        let depth = self.open.len();
        let Some(parent) = self.open.last_mut() else { return Ok(()) };
        let index = parent.count;
        parent.count += 1;
        if parent.array {
            self.path.truncate(parent.path_end);
            // An item of the document itself is a row: its path begins within it.
            if !(in_table && depth == 1) {
                self.join();
                self.path.push_str(itoa::Buffer::new().format(index));
            }
        }
        if self.path.len() > PATH_BYTES_MAX { Err(Reason::PathTooLong) } else { Ok(()) }
    }

    /// Puts the dot between the path of the innermost container and what follows, unless that is where paths begin.
    fn join(&mut self) {
        let beginning = if self.layout == Layout::Leaves { 1 } else { 2 };
        if self.open.len() > beginning {
            self.path.push('.');
        }
    }

    fn begin(&mut self, array: bool) -> Emitted {
        if self.layout == Layout::Unknown {
            if array {
                self.layout = Layout::Columns;
            } else {
                self.layout = Layout::Leaves;
                self.out.extend_from_slice(b"key,value\r\n");
            }
        }
        self.enter_member()?;
        self.open.push(Open { path_end: self.path.len(), count: 0, array });
        Ok(())
    }

    fn end(&mut self) -> Emitted {
        let Some(closed) = self.open.pop() else { return Ok(()) };
        self.path.truncate(closed.path_end);
        // A row is no leaf of itself, and neither is the document.
        let nested = self.open.len() >= if self.layout == Layout::Leaves { 1 } else { 2 };
        if closed.count == 0 && nested {
            // The leaf counts as a member of its own, which the container was already.
            if let Some(parent) = self.open.last_mut() {
                parent.count -= 1;
            }
            return self.leaf("", false);
        }
        self.member_done();
        Ok(())
    }

    /// Ends the row when what ended was an item of the document.
    fn member_done(&mut self) {
        if self.open.len() != 1 {
            return;
        }
        self.table.likely = 0;
        match self.layout {
            Layout::Columns => self.table.rows += 1,
            Layout::Rows => {
                for (i, cell) in self.table.cells.iter_mut().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.out.extend_from_slice(&self.table.text[std::mem::take(cell)]);
                }
                self.end_line(self.table.cells.len() == 1 && self.table.text.is_empty());
                self.table.text.clear();
            }
            Layout::Unknown | Layout::Leaves => {}
        }
    }

    /// Ends a line. One that is empty altogether would be skipped by readers, so it gets a quoted empty cell.
    fn end_line(&mut self, empty: bool) {
        self.out.extend_from_slice(if empty { b"\"\"\r\n" } else { b"\r\n" });
    }
}

/// The column of items that are scalars.
const VALUE: &str = "value";

impl Table {
    /// The place of a column, which is made when it is new.
    fn column(&mut self, name: &str) -> Result<usize, Reason> {
        if self.names.get(self.likely).is_some_and(|likely| likely == name) {
            self.likely += 1;
            return Ok(self.likely - 1);
        }
        let place = match self.places.get(name) {
            Some(&place) => place,
            None if self.names.len() == COLUMNS_MAX => return Err(Reason::TooManyColumns),
            None => {
                self.names.push(name.to_owned());
                self.places.insert(name.to_owned(), self.names.len() - 1);
                self.names.len() - 1
            }
        };
        self.likely = place + 1;
        Ok(place)
    }
}

impl Emit for Csv<'_> {
    fn begin_object(&mut self) -> Emitted {
        self.begin(false)
    }
    fn end_object(&mut self) -> Emitted {
        self.end()
    }
    fn key(&mut self, key: &str) -> Emitted {
        let path_end = self.open.last().map_or(0, |parent| parent.path_end);
        self.path.truncate(path_end);
        if path_end + key.len() > PATH_BYTES_MAX {
            return Err(Reason::PathTooLong);
        }
        self.join();
        let mut rest = key;
        while let Some(i) = memchr::memchr2(b'.', b'\\', rest.as_bytes()) {
            self.path.push_str(&rest[..i]);
            self.path.push('\\');
            self.path.push_str(&rest[i..=i]);
            rest = &rest[i + 1..];
        }
        self.path.push_str(rest);
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        self.begin(true)
    }
    fn end_array(&mut self) -> Emitted {
        self.end()
    }
    fn null(&mut self) -> Emitted {
        self.leaf("", false)
    }
    fn bool(&mut self, value: bool) -> Emitted {
        self.leaf(if value { "true" } else { "false" }, false)
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        self.leaf(lexeme, false)
    }
    fn string(&mut self, text: &str) -> Emitted {
        self.leaf(text, self.guard)
    }
}

/// The bytes that put a field in quotes.
const WANTS_QUOTES: [bool; 256] = {
    let mut wants = [false; 256];
    wants[b',' as usize] = true;
    wants[b'"' as usize] = true;
    wants[b'\r' as usize] = true;
    wants[b'\n' as usize] = true;
    wants
};

/// Appends a field, quoted where it must be.
fn push_text(text: &str, guard: bool, out: &mut Vec<u8>) {
    let guarded = guard && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let bytes = text.as_bytes();
    // A byte order mark that begins a file would be taken for one.
    let quoted = bytes.iter().any(|&byte| WANTS_QUOTES[usize::from(byte)]) || text.starts_with('\u{feff}');
    if quoted {
        out.push(b'"');
    }
    if guarded {
        out.push(b'\'');
    }
    if quoted {
        let start = out.len();
        out.resize(start + 2 * bytes.len(), 0);
        let (_, _, written) = csv_core::quote(bytes, &mut out[start..], b'"', b'"', true);
        out.truncate(start + written);
        out.push(b'"');
    } else {
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, JsonError, Style, transcode};
    use super::*;

    fn csv(json: &str) -> Result<String, JsonError> {
        styled(json, Style::default())
    }

    fn styled(json: &str, style: Style) -> Result<String, JsonError> {
        let mut out = Vec::new();
        transcode(json.as_bytes(), Format::Csv, style, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(csv(json).unwrap().replace("\r\n", "\n"), expected);
    }

    #[test]
    fn an_object_is_a_row_a_leaf() {
        check(
            r#"{"a":{"b":[1,{"c":null}],"d.e":true},"\\":{},"":[],"f":"x,y"}"#,
            "key,value\na.b.0,1\na.b.1.c,\na.d\\.e,true\n\\\\,\n,\nf,\"x,y\"\n",
        );
        check("{}", "key,value\n");
        check(r#"{"":{"":{"a":1}}}"#, "key,value\n..a,1\n");
    }

    #[test]
    fn an_array_is_a_table() {
        check(
            r#"[{"id":1,"a":{"b":2}},{"c":"x","id":3},4,[5,[6]]]"#,
            "id,a.b,c,value,0,1.0\n1,2,,,,\n3,,x,,,\n,,,4,,\n,,,,5,6\n",
        );
        check(r#"[{"a":1,"a":2}]"#, "a\n2\n");
        check(r#"["a",null,""]"#, "value\na\n\"\"\n\"\"\n");
        check("[]", "value\n");
        check("[{},[]]", "value\n\"\"\n\"\"\n");
        check("[{\"\u{feff}\":1}]", "\"\u{feff}\"\n1\n");
    }

    #[test]
    fn a_scalar_is_a_table_of_one_cell() {
        check("1.50", "value\n1.50\n");
        check("null", "value\n\"\"\n");
        check(r#""a\nb""#, "value\n\"a\nb\"\n");
    }

    #[test]
    fn the_guard_is_for_text_alone() {
        let guard = Style { csv_guard: true, ..Style::default() };
        let json = r#"{"=k":"=1","a":-1,"b":"-1","c":"\t","d":"\r,","e":"@x","f":"+","g":"x=","h":{"+i":null}}"#;
        assert_eq!(
            styled(json, guard).unwrap(),
            "key,value\r\n'=k,'=1\r\na,-1\r\nb,'-1\r\nc,'\t\r\nd,\"'\r,\"\r\ne,'@x\r\nf,'+\r\ng,x=\r\nh.+i,\r\n",
        );
        assert_eq!(styled(r#"[{"@a":"=b"},{"@a":-2}]"#, guard).unwrap(), "'@a\r\n'=b\r\n-2\r\n");
        assert_eq!(styled(r#"[{"@a":"=b"}]"#, Style::default()).unwrap(), "@a\r\n=b\r\n");
    }

    #[test]
    fn what_would_grow_without_bound_is_refused() {
        let fails = |json: &str| csv(json).unwrap_err().reason;
        let wide = |columns: usize| {
            let members: Vec<String> = (0..columns).map(|i| format!("\"k{i}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(csv(&format!("[{}]", wide(COLUMNS_MAX))).is_ok());
        assert!(csv(&wide(COLUMNS_MAX + 1)).is_ok());
        assert_eq!(fails(&format!("[{}]", wide(COLUMNS_MAX + 1))), Reason::TooManyColumns);
        let narrow = ",{}".repeat(CELLS_MAX / COLUMNS_MAX);
        assert_eq!(fails(&format!("[{}{narrow}]", wide(COLUMNS_MAX))), Reason::TooManyCells);
        let key = "k".repeat(PATH_BYTES_MAX / 2);
        assert!(csv(&format!("{{\"{key}\":{{\"{}\":1}}}}", &key[1..])).is_ok());
        assert_eq!(fails(&format!("{{\"{key}\":{{\"{key}\":1}}}}")), Reason::PathTooLong);
        assert_eq!(fails(&format!("{{\"{key}{key}\":[1]}}")), Reason::PathTooLong);
        let many = "1,".repeat(PATHS_BYTES_MAX / key.len());
        assert_eq!(fails(&format!("{{\"{key}\":[{many}1]}}")), Reason::PathTooLong);
    }
}
