//! Tables of a study or of runs, as values that Markdown and HTML are made from, and `results.csv`.

mod breakdown;
mod columns;
mod csv;
mod markdown;
mod profile;
mod runs;
mod study;

pub use breakdown::{runs_breakdown, study_breakdown};
pub use csv::results_csv;
pub(crate) use markdown::title;
pub use markdown::{report_md, results_md};
pub use profile::profile_tables;
pub(crate) use profile::{SlotField, mean};
pub use runs::runs_table;
pub(crate) use study::ranked;
pub use study::{conclusions_table, facts, leader_board, results_table, settings_table};

use crate::number;

/// A table for people. Its numbers know where in the JSON they are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// One for each cell of a row.
    pub columns: Vec<Heading>,
    /// The cells.
    pub rows: Vec<Vec<Cell>>,
}

/// The head of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// Its name.
    pub title: String,
    /// The unit of its numbers; empty where they have none.
    pub unit: &'static str,
    /// Whether it holds numbers, which stand at the right.
    pub is_numeric: bool,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing was measured.
    Empty,
    /// Words.
    Text(String),
    /// A number.
    Number(Number),
}

/// A number in a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// As it is shown, in the column's unit.
    pub value: f64,
    /// Digits after the point.
    pub decimals: usize,
    /// Where in the JSON it is from.
    pub source: Source,
    /// How much of the JSON's unit is one of the column's: 1,048,576 for bytes shown as MiB.
    pub per: f64,
}

/// Where in the JSON of the page a number is from, as JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The value there.
    At(String),
    /// The value at the first over the value at the second.
    Ratio(String, String),
    /// The mean of a field over the objects of the array there.
    Mean {
        /// The array.
        array: String,
        /// The field.
        field: &'static str,
    },
}

impl Cell {
    /// What is shown.
    pub fn text(&self) -> String {
        match self {
            Self::Empty => number::NONE.to_owned(),
            Self::Text(text) => text.clone(),
            Self::Number(cell) => number::fixed(cell.value, cell.decimals),
        }
    }

    fn some_text(text: Option<&str>) -> Self {
        text.map_or(Self::Empty, |text| Self::Text(text.to_owned()))
    }

    /// The number at a pointer in the JSON, shown in units of `per`. The column decides on the decimals.
    fn at(value: Option<f64>, pointer: String, per: f64) -> Self {
        Self::number(value, Source::At(pointer), per)
    }

    fn number(value: Option<f64>, source: Source, per: f64) -> Self {
        match value.filter(|value| value.is_finite()) {
            Some(value) => Self::Number(Number {
                value: value / per,
                decimals: 0,
                source,
                per,
            }),
            None => Self::Empty,
        }
    }
}

impl Heading {
    fn text(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            unit: "",
            is_numeric: false,
        }
    }

    fn number(title: impl Into<String>, unit: &'static str) -> Self {
        Self {
            title: title.into(),
            unit,
            is_numeric: true,
        }
    }

    /// With the unit.
    pub fn full(&self) -> String {
        if self.unit.is_empty() {
            self.title.clone()
        } else {
            format!("{} ({})", self.title, self.unit)
        }
    }
}

/// A column that is being made: its head, how many decimals it has where that is not computed from its numbers, its cells.
struct Column {
    heading: Heading,
    decimals: Option<usize>,
    cells: Vec<Cell>,
}

impl Column {
    fn new(heading: Heading, cells: impl IntoIterator<Item = Cell>) -> Self {
        Self {
            heading,
            decimals: None,
            cells: cells.into_iter().collect(),
        }
    }

    fn with_decimals(self, decimals: Option<usize>) -> Self {
        Self { decimals, ..self }
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| *cell == Cell::Empty)
    }
}

impl Table {
    /// A table of the columns that hold anything, in their order.
    fn new(title: impl Into<String>, columns: Vec<Column>) -> Self {
        let mut columns: Vec<Column> = columns.into_iter().filter(|column| !column.is_empty()).collect();
        for column in &mut columns {
            let numbers = column.cells.iter().filter_map(|cell| match cell {
                Cell::Number(number) => Some(number.value),
                _ => None,
            });
            let decimals = column.decimals.unwrap_or_else(|| number::decimals(numbers));
            for cell in &mut column.cells {
                if let Cell::Number(number) = cell {
                    number.decimals = decimals;
                }
            }
        }
        let count = columns.first().map_or(0, |column| column.cells.len());
        let mut rows = vec![Vec::with_capacity(columns.len()); count];
        let mut headings = Vec::with_capacity(columns.len());
        for column in columns {
            headings.push(column.heading);
            for (row, cell) in rows.iter_mut().zip(column.cells) {
                row.push(cell);
            }
        }
        Self {
            title: title.into(),
            columns: headings,
            rows,
        }
    }
}

/// A key as a JSON pointer holds it.
fn pointer_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_columns_are_left_out_and_decimals_are_the_columns() {
        let numbers = |values: &[f64]| {
            values
                .iter()
                .map(|&v| Cell::at(Some(v), "/x".to_owned(), 1.0))
                .collect::<Vec<_>>()
        };
        let table = Table::new(
            "t",
            vec![
                Column::new(Heading::text("name"), [Cell::Text("a".into()), Cell::Text("b".into())]),
                Column::new(Heading::number("nothing", "ms"), [Cell::Empty, Cell::Empty]),
                Column::new(Heading::number("time", "ms"), numbers(&[1.5, 123.4])),
                Column::new(Heading::number("loss", "nats"), numbers(&[1.5, 2.0])).with_decimals(Some(4)),
            ],
        );
        let heads: Vec<_> = table.columns.iter().map(Heading::full).collect();
        assert_eq!(heads, ["name", "time (ms)", "loss (nats)"]);
        let texts: Vec<Vec<_>> = table
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::text).collect())
            .collect();
        assert_eq!(texts, [["a", "1.5", "1.5000"], ["b", "123.4", "2.0000"]]);
    }

    #[test]
    fn what_is_not_finite_is_empty() {
        for value in [f64::NAN, f64::INFINITY] {
            assert_eq!(Cell::at(Some(value), "/x".to_owned(), 1.0), Cell::Empty);
        }
        assert_eq!(Cell::Empty.text(), "–");
    }

    #[test]
    fn pointers_escape_their_two_characters() {
        assert_eq!(pointer_key("faults/s ~"), "faults~1s ~0");
    }
}
