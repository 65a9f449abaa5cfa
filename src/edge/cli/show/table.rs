//! Tables for people: columns that line up.

/// Rows under a head.
pub(in crate::edge::cli) fn table<R: AsRef<[String]>>(head: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    let rows = rows.into_iter().map(|row| row.as_ref().to_vec());
    aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Columns as wide as their widest cell, two spaces apart.
pub(super) fn aligned(rows: &[impl AsRef<[String]>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let row = row.as_ref();
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let padded = |(cell, &width): (&String, &usize)| format!("{cell:width$}");
        let cells: Vec<String> = row.as_ref().iter().zip(&widths).map(padded).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A name of JSON and CSV as the head of a column.
pub(in crate::edge::cli) fn heading(name: &str) -> String {
    name.replace('_', " ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [["1", "ä", ""], ["22", "bb", "c"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&["A", "BBB", "C"], rows), "A   BBB  C\n1   ä\n22  bb   c\n");
    }
}
