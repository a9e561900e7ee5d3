//! An event file that is being written.

use crate::error::TensorBoardError;
use crate::messages::{Event, SessionLog, Summary, Value, What};
use crate::record;
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version that TensorFlow 2 and PyTorch write.
const FILE_VERSION: &str = "brain.Event:2";

/// An event file, open for writing. What was written is with the operating system after [`flush`](Self::flush), or when
/// this is dropped.
///
/// Names of values with a `/` are grouped by TensorBoard by what stands before it.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// Begins a file in `dir`, which is made if it is missing. Files that are there stay: TensorBoard shows all files
    /// of a directory as one run.
    ///
    /// # Errors
    /// [`TensorBoardError::Io`].
    pub fn create(dir: &Path, hostname: &str) -> Result<Self, TensorBoardError> {
        Self::create_at(dir, hostname, since_1970())
    }

    fn create_at(dir: &Path, hostname: &str, time: Duration) -> Result<Self, TensorBoardError> {
        fs::create_dir_all(dir).map_err(|source| io_error("create", dir, source))?;
        // TensorBoard reads the files of a directory in the order of their names.
        let seconds = time.as_secs();
        let host: String = hostname
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-._".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let stem = format!("events.out.tfevents.{seconds:010}.{host}.{}", std::process::id());
        let mut names = std::iter::once(stem.clone()).chain((1_u64..).map(|n| format!("{stem}.{n}")));
        let (path, file) = loop {
            let path = dir.join(names.next().unwrap_or_default());
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                // A second file of the same process in the same second.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(io_error("create", &path, source)),
            }
        };
        let mut events = Self {
            path,
            file: BufWriter::new(file),
        };
        events.write(0, What::FileVersion(FILE_VERSION.to_owned()))?;
        events.flush()?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the run goes on after `step` steps: what earlier files of the directory hold of later steps will be
    /// written again, and TensorBoard forgets its scalars.
    ///
    /// # Errors
    /// [`TensorBoardError::Io`].
    pub fn resume_after(&mut self, step: u64) -> Result<(), TensorBoardError> {
        // TensorBoard drops events from the step of this one on.
        self.write(step.saturating_add(1), What::SessionLog(SessionLog::start()))
    }

    /// Adds a value. The format holds single precision.
    ///
    /// # Errors
    /// [`TensorBoardError::Io`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<(), TensorBoardError> {
        self.summary(step, Value::scalar(tag, value as f32))
    }

    /// Adds text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// [`TensorBoardError::Io`].
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<(), TensorBoardError> {
        self.summary(step, Value::text(tag, text))
    }

    /// Hands everything to the operating system, so that TensorBoard sees it.
    ///
    /// # Errors
    /// [`TensorBoardError::Io`].
    pub fn flush(&mut self) -> Result<(), TensorBoardError> {
        self.file
            .flush()
            .map_err(|source| io_error("write", &self.path, source))
    }

    fn summary(&mut self, step: u64, value: Value) -> Result<(), TensorBoardError> {
        self.write(step, What::Summary(Summary { value: vec![value] }))
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), TensorBoardError> {
        let event = Event {
            wall_time: since_1970().as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        record::write(&mut self.file, &event.encode_to_vec()).map_err(|source| io_error("write", &self.path, source))
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> TensorBoardError {
    TensorBoardError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Content, Tensor};

    fn events(path: &Path) -> Vec<Event> {
        record::read_all(&fs::read(path).unwrap())
            .unwrap()
            .iter()
            .map(|data| Event::decode(data.as_slice()).unwrap())
            .collect()
    }

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(&dir.path().join("events"), "laptop").unwrap();
        file.resume_after(2).unwrap();
        file.scalar("loss/train", 3, 10.98).unwrap();
        file.text("sample", 3, "Es war einmal …").unwrap();
        let before = fs::metadata(file.path()).unwrap().len();
        file.flush().unwrap();
        assert!(fs::metadata(file.path()).unwrap().len() > before);

        let events = events(file.path());
        let now = since_1970().as_secs_f64();
        assert!(events.iter().all(|event| (now - event.wall_time).abs() < 60.0));
        assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 3, 3, 3]);
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: 1 })));
        let value = |event: &Event| match &event.what {
            Some(What::Summary(Summary { value })) => value[0].clone(),
            other => panic!("{other:?}"),
        };
        let (scalar, text) = (value(&events[2]), value(&events[3]));
        assert_eq!(scalar.tag, "loss/train");
        assert_eq!(scalar.content, Some(Content::SimpleValue(10.98)));
        let plugin = text.metadata.and_then(|metadata| metadata.plugin_data).unwrap();
        assert_eq!((text.tag.as_str(), plugin.plugin_name.as_str()), ("sample", "text"));
        let Some(Content::Tensor(Tensor { dtype, string_val, .. })) = text.content else {
            panic!("no tensor");
        };
        assert_eq!((dtype, string_val), (7, vec!["Es war einmal …".as_bytes().to_vec()]));
    }

    #[test]
    fn files_are_named_by_time_host_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let create = |host| EventFile::create_at(dir.path(), host, Duration::from_millis(1_700_000_000_900)).unwrap();
        let name = |file: &EventFile| file.path().file_name().unwrap().to_str().unwrap().to_owned();
        let pid = std::process::id();
        let (first, second, other) = (create("laptop"), create("laptop"), create("a b/c"));
        assert_eq!(name(&first), format!("events.out.tfevents.1700000000.laptop.{pid}"));
        assert_eq!(name(&second), format!("events.out.tfevents.1700000000.laptop.{pid}.1"));
        assert_eq!(name(&other), format!("events.out.tfevents.1700000000.a_b_c.{pid}"));
        // A viewer that looks in finds a whole file at once.
        assert_eq!(events(first.path()).len(), 1);
    }

    /// Bytes that TensorBoard's own messages give for the same event (`tensorboard.compat.proto`, version 2.21).
    #[test]
    fn bytes_are_those_of_tensorboard() {
        let scalar = Event {
            wall_time: 1.5,
            step: 7,
            what: Some(What::Summary(Summary {
                value: vec![Value::scalar("loss", 2.25)],
            })),
        };
        assert_eq!(hex(&scalar), SCALAR);
        let text = Event {
            what: Some(What::Summary(Summary {
                value: vec![Value::text("plan", "steps = 3")],
            })),
            ..scalar
        };
        assert_eq!(hex(&text), TEXT);
    }

    const SCALAR: &str = "09000000000000f83f10072a0d0a0b0a046c6f73731500001040";
    const TEXT: &str = "09000000000000f83f10072a250a230a04706c616e420f0807120042097374657073203d20334a0a0a060a\
                        04746578742002";

    fn hex(event: &Event) -> String {
        event.encode_to_vec().iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = EventFile::create(&file.join("events"), "laptop")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("cannot create {}: ", file.join("events").display())),
            "{error}"
        );
    }
}
