//! `results.md` and `report.md`.

use super::study::kind_title;
use super::{
    Cell, Table, conclusions_table, facts, leader_board, profile_tables, results_table, runs_breakdown, runs_table,
    settings_table, study_breakdown,
};
use crate::figures::Figure;
use crate::run_records::RunFigures;
use gpt2_records::Study;
use std::fmt::Write;

/// A study as Markdown. `figures` are those that lie in `figures/`.
pub fn results_md(study: &Study, figures: &[Figure]) -> String {
    let mut text = format!("# {}\n", title(study));
    push_facts(&mut text, &facts(study));
    push_table(&mut text, &settings_table(study));
    push_table(&mut text, &conclusions_table(study));
    if study.rows.len() > 1 {
        push_table(&mut text, &leader_board(study));
    }
    if let Some(table) = study_breakdown(study) {
        push_table(&mut text, &table);
    }
    if let Some(profile) = &study.profile {
        for table in profile_tables(profile) {
            push_table(&mut text, &table);
        }
        push_list(&mut text, "Advice", &profile.advice);
    }
    if !study.rows.is_empty() {
        push_table(&mut text, &results_table(study));
    }
    push_list(&mut text, "Notes", &study.notes);
    push_figures(&mut text, figures);
    text
}

/// Runs as Markdown: [`results_md`]'s counterpart.
pub fn report_md(runs: &[RunFigures], figures: &[Figure]) -> String {
    let mut text = "# Report of runs\n".to_owned();
    push_table(&mut text, &runs_table(runs));
    if let Some(table) = runs_breakdown(runs) {
        push_table(&mut text, &table);
    }
    for run in runs {
        let _ = write!(text, "\n## {}\n", escaped(&run.name));
        push_facts(&mut text, &run.facts());
    }
    push_figures(&mut text, figures);
    text
}

/// What a study is called at the head of its page.
pub(crate) fn title(study: &Study) -> String {
    let of: Vec<&str> = ["model", "seq"]
        .into_iter()
        .filter_map(|key| study.settings.get(key).map(String::as_str))
        .collect();
    match of.as_slice() {
        [model, seq] => format!("{} of {model}, {seq} tokens long", kind_title(study.kind)),
        [model] if study.settings.contains_key("model") => format!("{} of {model}", kind_title(study.kind)),
        _ => kind_title(study.kind).to_owned(),
    }
}

fn push_facts(text: &mut String, facts: &[(&'static str, String)]) {
    text.push('\n');
    for (name, value) in facts {
        let value = if *name == "Command" {
            code(value)
        } else {
            escaped(value)
        };
        let _ = writeln!(text, "- **{name}:** {value}");
    }
}

fn push_list(text: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n\n");
    for item in items {
        let _ = writeln!(text, "- {}", escaped(item));
    }
}

fn push_figures(text: &mut String, figures: &[Figure]) {
    if figures.is_empty() {
        return;
    }
    text.push_str("\n## Figures\n");
    for figure in figures {
        let title = escaped(figure.title()).replace(['[', ']'], "");
        let _ = write!(
            text,
            "\n![{title}](figures/{}.svg)\n\n{}\n",
            figure.name(),
            escaped(figure.caption())
        );
    }
}

/// The table with its columns padded, so that it can be read as it is.
fn push_table(text: &mut String, table: &Table) {
    if table.rows.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {}\n\n", escaped(&table.title));
    let heads: Vec<String> = table.columns.iter().map(|column| escaped(&column.full())).collect();
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|row| row.iter().map(Cell::text).map(|cell| escaped(&cell)).collect())
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([heads[column].chars().count(), 3]).max().unwrap_or(3)
        })
        .collect();
    let mut push_row = |cells: &[String]| {
        for ((cell, &width), column) in cells.iter().zip(&widths).zip(&table.columns) {
            let _ = if column.is_numeric {
                write!(text, "| {cell:>width$} ")
            } else {
                write!(text, "| {cell:<width$} ")
            };
        }
        text.push_str("|\n");
    };
    push_row(&heads);
    let rules: Vec<String> = table
        .columns
        .iter()
        .zip(&widths)
        .map(|(column, width)| {
            let rule = "-".repeat(width - 1);
            if column.is_numeric { rule + ":" } else { rule + "-" }
        })
        .collect();
    push_row(&rules);
    for row in &rows {
        push_row(row);
    }
}

/// Text that Markdown shows as it is, on one line.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '|' | '*' | '`' | '\\' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// A command in a code span, whose fence is longer than any run of backticks in it (CommonMark, section 6.1).
fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    if longest == 0 {
        format!("{fence}{text}{fence}")
    } else {
        format!("{fence} {text} {fence}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_it_is() {
        assert_eq!(escaped("a|b <script> *c*\nd"), r"a\|b &lt;script> \*c\* d");
        assert_eq!(code("gpt2 bench"), "`gpt2 bench`");
        assert_eq!(code("a `b` ``c``"), "``` a `b` ``c`` ```");
    }
}
