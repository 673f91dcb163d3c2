//! Tables as people and `awk` read them: a line of upper-case headers, then a line for each row.

/// Rows below headers, in columns.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headers: &[&str]) -> Table {
        Table { rows: vec![headers.iter().map(|header| (*header).to_owned()).collect()] }
    }

    /// Adds a row; an empty cell is drawn as `-`, so that columns can be counted.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        let marked = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(marked.collect());
    }

    /// Draws it, each line with its line break.
    pub(super) fn draw(&self) -> String {
        self.lines(0)
    }

    /// Draws it without the headers, for what goes on.
    pub(super) fn draw_rows(&self) -> String {
        self.lines(1)
    }

    fn lines(&self, first: usize) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            format!("{}\n", line.trim_end())
        };
        self.rows.iter().skip(first).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.add(vec!["größer".to_owned(), "on".to_owned()]);
        table.add(vec!["a".to_owned(), String::new()]);
        assert_eq!(table.draw(), "NAME    STATE\ngrößer  on\na       -\n");
    }
}
