//! CSV: RFC 4180 with a header, quoted by csv-core.
//!
//! - An object is the header `key,value` and a row for each leaf. The key of a nested leaf is all keys on the way to it,
//!   joined with `.`; places in arrays count from 0; a `.` in a key is written `\.` and a `\` as `\\`.
//! - An array is a table of a row for each item. An object's or array's leaves are cells of the columns that their joined
//!   keys name, a scalar's column is `value`. The header is all columns, in order of first sight.
//! - A scalar is a table of one column, `value`, and one row.
//!
//! Null, an empty string and an empty container are an empty cell alike. A key that comes twice is two rows, or in a table
//! the last of the two. The rows of a table wait until all its columns are known, but no longer than [`WINDOW_BYTES`] of
//! the document: what columns came until then are the table's, rows follow as they come, and one with another column is
//! an error.

use std::collections::HashMap;
use std::ops::Range;

use super::Reason;
use super::emit::{Emit, Emitted, Writer};

/// How much of an array is read before its table begins, in bytes of JSON, white space and escapes not counted. The row
/// that reaches it still adds its columns.
pub const WINDOW_BYTES: usize = 256 << 10;
/// The most columns of a table.
pub const COLUMNS_MAX: usize = 1_000;
/// The most cells that rows of a table leave empty for columns they lack: a few wide rows must not blow up many narrow
/// ones.
pub const MISSING_CELLS_MAX: usize = 4_000_000;
/// The longest row of a table, in bytes of cells and what finds them.
pub const ROW_BYTES_MAX: usize = 4 << 20;
/// The longest joined key, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// The most bytes of joined keys in all rows of an object: they repeat what the document says once.
pub const PATHS_BYTES_MAX: usize = 64 << 20;

/// Writes CSV as events come.
pub struct Csv {
    out: Vec<u8>,
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
    /// An array: a row for each item.
    Table,
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
    /// How much of the document the window has taken.
    read_bytes: usize,
    /// The header is written: no column can be added.
    begun: bool,
    /// What waits to be written: the quoted text of all cells, the cells row after row, and where each row ends.
    text: Vec<u8>,
    cells: Vec<Cell>,
    rows: Vec<usize>,
    /// Where the cells and the text of the row that is being read begin.
    row_start: (usize, usize),
    /// The row that is being written: where in the text each column's cell lies.
    line: Vec<Range<usize>>,
    /// Cells that rows have left empty.
    missing: usize,
}

/// A cell that waits. All that wait are far fewer than 2^32 bytes: see [`ROW_BYTES_MAX`] and [`WINDOW_BYTES`].
struct Cell {
    column: u32,
    text_end: u32,
}

impl Csv {
    /// `guard` is [`super::Style::csv_guard`].
    pub fn new(guard: bool) -> Csv {
        let (out, path, open) = (Vec::new(), String::new(), Vec::new());
        Csv { out, guard, layout: Layout::Unknown, path, paths_bytes: 0, open, table: Table::default() }
    }

    /// The leaf that the path leads to.
    fn leaf(&mut self, text: &str, guard: bool) -> Emitted {
        self.enter_member()?;
        match self.layout {
            Layout::Unknown => {
                self.out.extend_from_slice(b"value\r\n");
                let start = self.out.len();
                push_text(text, guard, &mut self.out);
                end_line(start, &mut self.out);
            }
            Layout::Leaves => {
                self.paths_bytes += self.path.len();
                if self.paths_bytes > PATHS_BYTES_MAX {
                    return Err(Reason::PathTooLong);
                }
                push_text(&self.path, self.guard, &mut self.out);
                self.out.push(b',');
                push_text(text, guard, &mut self.out);
                self.out.extend_from_slice(b"\r\n");
            }
            Layout::Table => {
                let path = if self.open.len() == 1 { VALUE } else { &self.path };
                self.table.cell(path, text, guard)?;
            }
        }
        self.member_done()
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
                self.layout = Layout::Table;
            } else {
                self.layout = Layout::Leaves;
                self.out.extend_from_slice(b"key,value\r\n");
            }
        }
        self.enter_member()?;
        self.open.push(Open { path_end: self.path.len(), count: 0, array });
        self.table.read_bytes += "[]".len();
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
        self.member_done()
    }

    /// Ends the row when what ended was an item of the document, and the table when it was the document.
    fn member_done(&mut self) -> Emitted {
        if self.layout != Layout::Table || self.open.len() > 1 {
            return Ok(());
        }
        let ended = self.open.is_empty();
        if !ended {
            self.table.end_row();
        }
        if ended || self.table.begun || self.table.read_bytes >= WINDOW_BYTES {
            self.table.write_rows(self.guard, &mut self.out)?;
        }
        Ok(())
    }
}

/// The column of items that are scalars.
const VALUE: &str = "value";

impl Table {
    /// Adds a cell to the row that is being read.
    fn cell(&mut self, name: &str, text: &str, guard: bool) -> Emitted {
        let column = self.column(name)?;
        push_text(text, guard, &mut self.text);
        self.cells.push(Cell { column: column as u32, text_end: self.text.len() as u32 });
        let (cells_start, text_start) = self.row_start;
        let row_bytes = self.text.len() - text_start + (self.cells.len() - cells_start) * size_of::<Cell>();
        self.read_bytes += text.len().max(1);
        if row_bytes > ROW_BYTES_MAX { Err(Reason::RowTooLong) } else { Ok(()) }
    }

    /// The place of a column, which is made when it is new.
    fn column(&mut self, name: &str) -> Result<usize, Reason> {
        if self.names.get(self.likely).is_some_and(|likely| likely == name) {
            self.likely += 1;
            return Ok(self.likely - 1);
        }
        let place = match self.places.get(name) {
            Some(&place) => place,
            None if self.begun => return Err(Reason::LateColumn),
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

    fn end_row(&mut self) {
        self.rows.push(self.cells.len());
        self.row_start = (self.cells.len(), self.text.len());
        self.likely = 0;
    }

    /// Writes the rows that wait, after the header the first time.
    fn write_rows(&mut self, guard: bool, out: &mut Vec<u8>) -> Emitted {
        if !self.begun {
            if self.names.is_empty() {
                self.column(VALUE)?;
            }
            self.line = vec![0..0; self.names.len()];
        }
        self.missing += (self.line.len() * self.rows.len()).saturating_sub(self.cells.len());
        if self.missing > MISSING_CELLS_MAX {
            return Err(Reason::TooManyCells);
        }
        if !self.begun {
            self.begun = true;
            self.write_header(guard, out);
        }
        let (mut cell, mut text) = (0, 0);
        for &row_end in &self.rows {
            for Cell { column, text_end } in &self.cells[cell..row_end] {
                self.line[*column as usize] = text..*text_end as usize;
                text = *text_end as usize;
            }
            cell = row_end;
            let start = out.len();
            for (i, range) in self.line.iter_mut().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&self.text[std::mem::take(range)]);
            }
            end_line(start, out);
        }
        self.text.clear();
        self.cells.clear();
        self.rows.clear();
        self.row_start = (0, 0);
        Ok(())
    }

    fn write_header(&self, guard: bool, out: &mut Vec<u8>) {
        let start = out.len();
        for (i, name) in self.names.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            push_text(name, guard, out);
        }
        end_line(start, out);
    }
}

/// Ends a line that begins at `start`. One that is empty altogether would be skipped by readers, so it gets a quoted
/// empty cell.
fn end_line(start: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(if out.len() == start { b"\"\"\r\n" } else { b"\r\n" });
}

impl Writer for Csv {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl Emit for Csv {
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
        self.table.read_bytes += key.len() + "\"\":".len();
        self.join();
        let mut rest = key;
        // Keys are short: one byte after another is quickest.
        while let Some(i) = rest.bytes().position(|byte| byte == b'.' || byte == b'\\') {
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
        check(r#"[{"a":1,"a":null}]"#, "a\n\"\"\n");
        check(r#"["a",null,""]"#, "value\na\n\"\"\n\"\"\n");
        check("[]", "value\n");
        check("[{},[]]", "value\n\"\"\n\"\"\n");
        check("[{\"\u{feff}\":1}]", "\"\u{feff}\"\n1\n");
    }

    #[test]
    fn a_table_has_the_columns_that_its_window_shows() {
        let row = r#"{"a":"0123456789"},"#;
        let rows = |bytes: usize| row.repeat(bytes / row.len());
        let wide = csv(&format!("[{}{{\"b\":1}}]", rows(WINDOW_BYTES - 100))).unwrap();
        assert!(wide.starts_with("a,b\r\n0123456789,\r\n") && wide.ends_with("0123456789,\r\n,1\r\n"));
        let late = csv(&format!("[{}{{\"b\":1}}]", rows(2 * WINDOW_BYTES))).unwrap_err();
        assert_eq!(late.reason, Reason::LateColumn);
        let long = csv(&format!("[{}{{}},{{\"a\":\"\",\"a\":2}}]", rows(2 * WINDOW_BYTES))).unwrap();
        assert_eq!(long.lines().count(), 1 + 2 * WINDOW_BYTES / row.len() + 2);
        assert!(long.ends_with("0123456789\r\n\"\"\r\n2\r\n"));
    }

    #[test]
    fn what_waits_for_the_columns_is_bounded() {
        let mut csv = Csv::new(false);
        csv.begin_array().unwrap();
        for _ in 0..2 * WINDOW_BYTES {
            csv.string("").unwrap();
            assert!(csv.table.text.len() + csv.table.cells.len() <= WINDOW_BYTES);
        }
        assert!(csv.table.begun);
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
        let narrow = ",{}".repeat(MISSING_CELLS_MAX / COLUMNS_MAX);
        assert!(csv(&format!("[{}{narrow}]", wide(COLUMNS_MAX))).is_ok());
        assert_eq!(fails(&format!("[{}{narrow},{{}}]", wide(COLUMNS_MAX))), Reason::TooManyCells);
        let long = "x".repeat(ROW_BYTES_MAX / 2 - 16);
        assert!(csv(&format!("[{{\"a\":\"{long}\",\"b\":\"{long}\"}}]")).is_ok());
        assert_eq!(fails(&format!("[{{\"a\":\"{long}\",\"b\":\"{long}\",\"c\":\"{long}\"}}]")), Reason::RowTooLong);
        let twice = "\"a\":1,".repeat(ROW_BYTES_MAX / size_of::<Cell>());
        assert_eq!(fails(&format!("[{{{twice}\"a\":1}}]")), Reason::RowTooLong);
        let key = "k".repeat(PATH_BYTES_MAX / 2);
        assert!(csv(&format!("{{\"{key}\":{{\"{}\":1}}}}", &key[1..])).is_ok());
        assert_eq!(fails(&format!("{{\"{key}\":{{\"{key}\":1}}}}")), Reason::PathTooLong);
        assert_eq!(fails(&format!("{{\"{key}{key}\":[1]}}")), Reason::PathTooLong);
        let many = "1,".repeat(PATHS_BYTES_MAX / key.len());
        assert_eq!(fails(&format!("{{\"{key}\":[{many}1]}}")), Reason::PathTooLong);
    }
}
