//! The directory of a run: where its files are, and that only one process trains in it.
//!
//! What the files hold is the business of those who write them: the plan, the metrics log, the checkpoints, the report.

use crate::error::TrainError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The names inside a run directory. Holds no lock, so that others may look at a run that is being trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPaths {
    root: PathBuf,
}

impl RunPaths {
    const PLAN: &str = "plan.toml";

    /// The names under `root`, whether or not there is anything.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The names of a run that exists, for reading.
    ///
    /// # Errors
    /// [`TrainError::NoRun`] if the directory holds no plan.
    pub fn existing(root: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let paths = Self::new(root);
        if paths.plan().is_file() {
            Ok(paths)
        } else {
            Err(TrainError::NoRun {
                path: paths.root,
                missing: Self::PLAN,
            })
        }
    }

    /// `parent/stem`, or the first of `stem-2`, `stem-3`, … that holds no run yet.
    pub fn unused(parent: &Path, stem: &str) -> PathBuf {
        let numbered = (2_u64..).map(|n| parent.join(format!("{stem}-{n}")));
        let mut candidates = std::iter::once(parent.join(stem)).chain(numbered);
        candidates
            .find(|root| !root.join(Self::PLAN).exists())
            .unwrap_or_else(|| parent.join(stem))
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every setting of the run, written before its first step.
    pub fn plan(&self) -> PathBuf {
        self.root.join(Self::PLAN)
    }

    /// One JSON object a step.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// Texts sampled while training.
    pub fn samples(&self) -> PathBuf {
        self.root.join("samples")
    }

    /// The text sampled after `step`.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.samples().join(format!("step-{step:08}.txt"))
    }

    /// One directory a checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// What was printed.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.txt")
    }

    /// Shards that the run has made itself.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The report, written when the run has ended.
    pub fn training_metrics(&self) -> PathBuf {
        self.root.join("training_metrics.json")
    }

    /// The last file of a run that reached its end.
    pub fn run_complete(&self) -> PathBuf {
        self.root.join("RUN_COMPLETE.txt")
    }

    fn lock(&self) -> PathBuf {
        self.root.join("run.lock")
    }
}

/// A run directory that this process may write to, until it is dropped or the process ends.
#[derive(Debug)]
pub struct RunDir {
    paths: RunPaths,
    /// The operating system gives the lock back when this is closed, however the process ends.
    _lock: File,
}

impl RunDir {
    /// Makes the directory of a new run, or takes an existing one that holds no run.
    ///
    /// # Errors
    /// [`TrainError::RunDirUnwritable`], [`TrainError::RunDirInUse`], or [`TrainError::RunDirTaken`] if a plan is there.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let dir = Self::acquire(RunPaths::new(root))?;
        Self::check_unused(dir.root())?;
        Ok(dir)
    }

    /// Checks that `root` holds no run yet.
    ///
    /// # Errors
    /// [`TrainError::RunDirTaken`] if it does.
    pub fn check_unused(root: &Path) -> Result<(), TrainError> {
        if RunPaths::new(root).plan().exists() {
            return Err(TrainError::RunDirTaken {
                path: root.to_path_buf(),
            });
        }
        Ok(())
    }

    /// Takes the directory of a run that is to be continued.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::RunDirUnwritable`] or [`TrainError::RunDirInUse`].
    pub fn resume(root: impl Into<PathBuf>) -> Result<Self, TrainError> {
        Self::acquire(RunPaths::existing(root)?)
    }

    /// The run is about to train: it is not complete any more.
    ///
    /// # Errors
    /// [`TrainError::Io`] if it cannot be told.
    pub fn begin(&self) -> Result<(), TrainError> {
        match fs::remove_file(self.run_complete()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TrainError::io("remove", self.run_complete(), error))
            }
            _ => Ok(()),
        }
    }

    fn acquire(paths: RunPaths) -> Result<Self, TrainError> {
        let unwritable = |source| TrainError::RunDirUnwritable {
            path: paths.root.clone(),
            source,
        };
        for directory in [paths.samples(), paths.checkpoints()] {
            fs::create_dir_all(directory).map_err(unwritable)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(paths.lock())
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number only improves the message, and some systems let nobody read a locked file.
                let pid = lock
                    .read_to_string(&mut holder)
                    .ok()
                    .and_then(|_| holder.trim().parse().ok());
                return Err(TrainError::RunDirInUse { path: paths.root, pid });
            }
            Err(TryLockError::Error(source)) => return Err(unwritable(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(unwritable)?;
        Ok(Self { paths, _lock: lock })
    }
}

impl Deref for RunDir {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_made_with_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("a/b")).unwrap();
        assert!(run.samples().is_dir() && run.checkpoints().is_dir());
        assert!(!run.plan().exists());
    }

    #[test]
    fn a_directory_in_use_names_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::create(dir.path()).unwrap();
        let error = RunDir::create(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::RunDirInUse { pid: Some(pid), .. } if pid == std::process::id()));
        drop(first);
        RunDir::create(dir.path()).unwrap();
    }

    #[test]
    fn a_run_is_not_overwritten_but_may_go_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(RunPaths::new(dir.path()).plan(), "").unwrap();
        let error = RunDir::create(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::RunDirTaken { .. }));
        assert!(error.to_string().contains("continue it with `--resume`"), "{error}");
        fs::write(RunPaths::new(dir.path()).run_complete(), "").unwrap();
        let run = RunDir::resume(dir.path()).unwrap();
        run.begin().unwrap();
        assert!(!run.run_complete().exists());
    }

    #[test]
    fn there_must_be_a_run_to_resume() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunDir::resume(dir.path()).unwrap_err();
        assert!(matches!(
            error,
            TrainError::NoRun {
                missing: "plan.toml",
                ..
            }
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunDir::create(file.join("run")).unwrap_err();
        assert!(matches!(error, TrainError::RunDirUnwritable { .. }), "{error}");
        assert!(error.to_string().ends_with("choose another with `--run`"), "{error}");
    }

    #[test]
    fn the_first_unused_name_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunPaths::unused(dir.path(), "demo"), dir.path().join("demo"));
        for taken in ["demo", "demo-2"] {
            fs::create_dir(dir.path().join(taken)).unwrap();
            fs::write(dir.path().join(taken).join("plan.toml"), "").unwrap();
        }
        assert_eq!(RunPaths::unused(dir.path(), "demo"), dir.path().join("demo-3"));
    }
}
