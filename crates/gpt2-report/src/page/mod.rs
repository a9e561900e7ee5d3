//! One self-contained HTML page: header, tables, figures as inline SVG, conclusions, notes, and the JSON that all of it is from.
//!
//! The page runs no script and asks for nothing: its policy forbids both.

use crate::error::ReportError;
use crate::figures::{Figure, run_figures, study_figures, theme};
use crate::run_records::{RunFigures, RunRecords};
use crate::tables::{self, Cell, Number, Source, Table, profile_tables};
use gpt2_records::Study;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

const STYLE: &str = include_str!("style.css");

/// What a browser may do with the page: apply its own style sheet.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The page of a study.
///
/// # Errors
/// [`ReportError::Draw`].
pub fn study_page(study: &Study) -> Result<String, ReportError> {
    study_page_with(study, &study_figures(study))
}

pub(crate) fn study_page_with(study: &Study, figures: &[Figure]) -> Result<String, ReportError> {
    let figures = figures_section(figures)?;
    let settings = tables::settings_table(study);
    let content = html! {
        (facts_list(&tables::facts(study)))
        (table_section(&settings))
        (table_section(&tables::conclusions_table(study)))
        @if study.rows.len() > 1 { (table_section(&tables::leader_board(study))) }
        (figures)
        @if let Some(table) = tables::study_breakdown(study) { (table_section(&table)) }
        @if let Some(profile) = &study.profile {
            @for table in profile_tables(profile) { (table_section(&table)) }
            (list_section("Advice", &profile.advice))
        }
        @if !study.rows.is_empty() { (table_section(&tables::results_table(study))) }
        (list_section("Notes", &study.notes))
    };
    Ok(page(&tables::title(study), None, &content, study))
}

/// The page of one or several runs. A browser loads it again every `refresh_sec` seconds, where that is given.
///
/// # Errors
/// [`ReportError::Draw`].
pub fn runs_page(runs: &[RunRecords], refresh_sec: Option<u32>) -> Result<String, ReportError> {
    runs_page_with(runs, refresh_sec, &run_figures(runs))
}

pub(crate) fn runs_page_with(
    runs: &[RunRecords],
    refresh_sec: Option<u32>,
    figures: &[Figure],
) -> Result<String, ReportError> {
    #[derive(Serialize)]
    struct Runs {
        runs: Vec<RunFigures>,
    }
    let all = Runs {
        runs: runs.iter().map(RunFigures::new).collect(),
    };
    let title = match all.runs.as_slice() {
        [run] => format!("Run {}", run.name),
        runs => format!("{} runs", runs.len()),
    };
    let figures = figures_section(figures)?;
    let content = html! {
        (table_section(&tables::runs_table(&all.runs)))
        @if let Some(table) = tables::runs_breakdown(&all.runs) { (table_section(&table)) }
        (figures)
        @for run in &all.runs {
            section {
                h2 { (run.name) }
                (facts_list(&run.facts()))
            }
        }
    };
    Ok(page(&title, refresh_sec, &content, &all))
}

fn page(title: &str, refresh_sec: Option<u32>, content: &Markup, results: &impl Serialize) -> String {
    let style = format!(
        ":root{{color-scheme:light dark;{}}}@media (prefers-color-scheme:dark){{:root{{{}}}}}{STYLE}",
        theme::variables(false),
        theme::variables(true),
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                @if let Some(seconds) = refresh_sec { meta http-equiv="refresh" content=(seconds); }
                // Without it a browser asks for /favicon.ico.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body {
                main {
                    h1 { (title) }
                    (content)
                }
                script type="application/json" id="results" { (PreEscaped(json_in_html(results))) }
            }
        }
    }
    .into_string()
}

/// JSON that cannot end the element it is in. `<` occurs in strings alone, where an escape means the same.
fn json_in_html(results: &impl Serialize) -> String {
    let json = serde_json::to_string(results).unwrap_or_else(|error| unreachable!("records are JSON: {error}"));
    json.replace('<', "\\u003c")
}

fn facts_list(facts: &[(&'static str, String)]) -> Markup {
    html! {
        dl {
            @for (name, value) in facts {
                div {
                    dt { (name) }
                    dd { @if *name == "Command" { code { (value) } } @else { (value) } }
                }
            }
        }
    }
}

fn list_section(title: &str, items: &[String]) -> Markup {
    html! {
        @if !items.is_empty() {
            section {
                h2 { (title) }
                ul { @for item in items { li { (item) } } }
            }
        }
    }
}

fn figures_section(figures: &[Figure]) -> Result<Markup, ReportError> {
    let drawn: Vec<(&Figure, String)> = figures
        .iter()
        .map(|figure| Ok((figure, figure.svg()?)))
        .collect::<Result<_, ReportError>>()?;
    Ok(html! {
        @if !drawn.is_empty() {
            section {
                h2 { "Figures" }
                div.figures {
                    @for (figure, svg) in &drawn {
                        figure id=(figure.name()) {
                            div.scroll tabindex="0" { (PreEscaped(svg)) }
                            figcaption { (figure.caption()) }
                        }
                    }
                }
            }
        }
    })
}

/// Columns with texts of more characters are broken into lines.
const LONG: usize = 48;

fn table_section(table: &Table) -> Markup {
    let is_long = |column: usize| table.rows.iter().any(|row| row[column].text().chars().count() > LONG);
    let classes: Vec<&str> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| match column.is_numeric {
            true => "number",
            false if is_long(index) => "long",
            false => "",
        })
        .collect();
    html! {
        @if !table.rows.is_empty() {
            section {
                h2 { (table.title) }
                div.scroll tabindex="0" {
                    table {
                        thead {
                            tr {
                                @for (column, class) in table.columns.iter().zip(&classes) {
                                    th class=[class_of(class)] scope="col" {
                                        (column.title)
                                        @if !column.unit.is_empty() { " " small { (column.unit) } }
                                    }
                                }
                            }
                        }
                        tbody {
                            @for row in &table.rows {
                                tr {
                                    @for (cell, class) in row.iter().zip(&classes) { (table_cell(cell, class)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn class_of(class: &str) -> Option<&str> {
    Some(class).filter(|class| !class.is_empty())
}

/// A cell; a number tells where in the JSON it is from.
fn table_cell(cell: &Cell, class: &str) -> Markup {
    let text = cell.text();
    let Cell::Number(Number { per, source, .. }) = cell else {
        return html! { td class=[class_of(class)] { (text) } };
    };
    match source {
        Source::At(pointer) => html! { td.number data-from=(pointer) data-per=(per) { (text) } },
        Source::Ratio(above, below) => {
            html! { td.number data-from=(above) data-over=(below) data-per=(per) { (text) } }
        }
        Source::Mean { array, field } => {
            html! { td.number data-from=(array) data-mean=(field) data-per=(per) { (text) } }
        }
    }
}
