//! Files of one JSON object a line.

use crate::error::EvalError;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// [`EvalError::Io`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, EvalError> {
    fs::read(path).map_err(EvalError::io("read", path))
}

/// Makes an example of each line of a file that is not blank. `make` is told how many there were before, and says what is wrong
/// with a line.
///
/// # Errors
/// [`EvalError::Line`] with the number of a line that is no UTF-8, no such object, or that `make`
/// refuses; [`EvalError::NoExamples`].
pub(super) fn parse<T: DeserializeOwned, E>(
    path: &Path,
    bytes: &[u8],
    expected: &'static str,
    mut make: impl FnMut(usize, T) -> Result<E, String>,
) -> Result<Vec<E>, EvalError> {
    let mut examples = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let example = std::str::from_utf8(line)
            .map_err(|error| format!("not UTF-8 at byte {} of the line", error.valid_up_to()))
            .and_then(|line| {
                // Some editors put a byte order mark before the first line.
                let line = line.trim_start_matches('\u{feff}').trim();
                if line.is_empty() {
                    return Ok(None);
                }
                // Serde reads the fields of an object from an array, too.
                if !line.starts_with('{') {
                    return Err("no JSON object".to_owned());
                }
                // To the parser, each line is the first.
                let object = serde_json::from_str(line)
                    .map_err(|error| error.to_string().replace(" at line 1 column ", " at column "))?;
                make(examples.len(), object).map(Some)
            })
            .map_err(|problem| EvalError::Line {
                path: path.to_path_buf(),
                line: number + 1,
                problem,
                expected,
            })?;
        examples.extend(example);
    }
    if examples.is_empty() {
        return Err(EvalError::NoExamples {
            path: path.to_path_buf(),
        });
    }
    Ok(examples)
}
