//! What goes to standard output, and figures as people read them. Errors and progress go elsewhere.

use crate::error::CliError;
use comfy_table::{Cell, CellAlignment, Table, presets};
use std::io::{self, Write};
use std::path::Path;

/// Prints at once, without adding a newline.
///
/// # Errors
/// [`CliError::Stdout`], or [`CliError::ReaderGone`] if nobody reads any more.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), CliError> {
    write_to(io::stdout().lock(), text.as_ref())
}

/// Prints text with terminal styles, which are taken out where the output is no terminal or `NO_COLOR` is set.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_styled(text: &str) -> Result<(), CliError> {
    write_to(anstream::stdout().lock(), text.as_bytes())
}

fn write_to(mut out: impl Write, text: &[u8]) -> Result<(), CliError> {
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => CliError::ReaderGone,
            _ => CliError::Stdout { source },
        })
}

/// Rows in aligned columns under a header, each line ended. The first `left` columns are words, the others figures.
pub(crate) fn table<H, R>(header: H, rows: Vec<R>, left: usize) -> String
where
    H: IntoIterator<Item: Into<Cell>>,
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    let header: Vec<Cell> = header.into_iter().map(Into::into).collect();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        let figures = column.index >= left;
        column.set_cell_alignment(if figures {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        });
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A path as it can be pasted into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match shlex::try_quote(&text) {
        Ok(quoted) => quoted.into_owned(),
        // Only a NUL cannot be quoted, and no path has one.
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_and_figures_right() {
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned()];
        let text = table(
            ["split", "tokens"],
            vec![row("train", "305,260"), row("val", "32,768")],
            1,
        );
        assert_eq!(text, " split   tokens\n train  305,260\n val     32,768\n");
    }

    #[test]
    fn paths_can_be_pasted() {
        assert_eq!(quoted(Path::new("runs/demo")), "runs/demo");
        assert_eq!(quoted(Path::new("my runs")), "'my runs'");
    }
}
