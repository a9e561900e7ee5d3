//! The directory of a run: where its files are, and that only one process trains in it.
//!
//! What the files hold is the business of those who write them: the plan, the metrics log, the checkpoints, the report.

use crate::checkpoint::Checkpoints;
use crate::error::TrainError;
use crate::step_log::read_records;
use gpt2_base::fs::{Lock, LockError, remove_leftovers};
use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::{fs, io};

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

    /// What rank `rank` of several has printed; what the first has is in [`log`](Self::log).
    pub fn rank_log(&self, rank: usize) -> PathBuf {
        self.root.join(format!("log.rank-{rank:03}.txt"))
    }

    /// Where the time of each step went on each of several ranks, one JSON object a step and rank.
    pub fn ranks(&self) -> PathBuf {
        self.root.join("ranks.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
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

    /// The newest checkpoint, whose directory is not there before it is whole.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        let checkpoints = Checkpoints::open(self.checkpoints()).ok()?;
        let step = checkpoints.steps().ok()?.last().copied()?;
        Some(checkpoints.path(step))
    }

    /// Whether there is training to go on from or to look at: a checkpoint, or the record of a step.
    ///
    /// A plan alone is what is left of a process that was killed before its first step.
    pub fn holds_training(&self) -> bool {
        let has_checkpoint = fs::read_dir(self.checkpoints()).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        });
        has_checkpoint || self.holds_steps()
    }

    /// Whether a step is on record. What cannot be read may be one.
    fn holds_steps(&self) -> bool {
        self.metrics().exists()
            && read_records(&self.metrics()).map_or(true, |records| records.iter().any(|record| record.step > 0))
    }

    /// The process that trains in this directory, if one does; its number is 0 where the system tells nothing of it.
    pub fn holder(&self) -> Option<u32> {
        match Lock::acquire(self.lock()) {
            Err(LockError::Held { pid }) => Some(pid.unwrap_or(0)),
            _ => None,
        }
    }

    fn lock(&self) -> PathBuf {
        self.root.join("run.lock")
    }

    /// Locks the directory, which must be there.
    fn take_lock(&self) -> Result<Lock, TrainError> {
        Lock::acquire(self.lock()).map_err(|error| match error {
            LockError::Held { pid } => TrainError::RunDirInUse {
                path: self.root.clone(),
                pid,
            },
            LockError::Io(source) => self.unwritable(source),
        })
    }

    fn unwritable(&self, source: io::Error) -> TrainError {
        TrainError::RunDirUnwritable {
            path: self.root.clone(),
            source,
        }
    }
}

/// A run directory that this process may write to, until it is dropped or the process ends.
///
/// A new run leaves nothing behind if no step was taken when this is dropped without [`keep`](Self::keep): the same
/// command can then be given again.
#[derive(Debug)]
pub struct RunDir {
    paths: RunPaths,
    lock: Option<Lock>,
    /// What to take away again.
    made: Made,
}

/// What of a run directory this process made.
#[derive(Debug)]
enum Made {
    /// Nothing that may be taken away.
    Nothing,
    /// The directory.
    Directory,
    /// What is in it, but for these names.
    AllBut(HashSet<OsString>),
}

impl RunDir {
    /// Makes the directory of a new run, or takes an existing one in which nothing was trained.
    ///
    /// # Errors
    /// [`TrainError::RunDirUnwritable`], [`TrainError::RunDirInUse`], or [`TrainError::RunDirTaken`] if a run is there.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let paths = RunPaths::new(root);
        let made = match fs::read_dir(&paths.root) {
            Ok(entries) => Made::AllBut(entries.flatten().map(|entry| entry.file_name()).collect()),
            Err(_) => Made::Directory,
        };
        let mut dir = Self::acquire(paths)?;
        Self::check_unused(&dir)?;
        dir.made = made;
        Ok(dir)
    }

    /// Checks that [`create`](Self::create) would succeed, and leaves nothing behind. Directories are made and removed:
    /// permissions do not tell whether, say, one can be made in `/proc`.
    ///
    /// # Errors
    /// Those of [`RunDir::create`].
    pub(crate) fn check_creatable(root: impl Into<PathBuf>) -> Result<(), TrainError> {
        let paths = RunPaths::new(root);
        let mut made = Vec::new();
        let locked = [paths.samples(), paths.checkpoints()]
            .iter()
            .try_for_each(|directory| create_missing(directory, &mut made))
            .map_err(|source| paths.unwritable(source))
            .and_then(|()| paths.take_lock());
        let checked = locked.and_then(|_lock| Self::check_unused(&paths));
        // One that another process has put something into is not empty, and stays.
        for directory in made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        checked
    }

    /// Checks that nothing was trained in a directory.
    ///
    /// # Errors
    /// [`TrainError::RunDirTaken`] if something was.
    pub fn check_unused(paths: &RunPaths) -> Result<(), TrainError> {
        if paths.plan().exists() && paths.holds_training() {
            return Err(TrainError::RunDirTaken {
                path: paths.root.clone(),
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

    /// Forgets the steps of a run that has no checkpoint to go on from, so that it can begin again. Whether there were any.
    ///
    /// # Errors
    /// [`TrainError::RunDirInUse`] if a process trains there, and I/O errors.
    pub fn forget_unsaved(root: impl Into<PathBuf>) -> Result<bool, TrainError> {
        let paths = RunPaths::new(root);
        let is_unsaved = |paths: &RunPaths| paths.newest_checkpoint().is_none() && paths.holds_steps();
        if !paths.plan().exists() || !is_unsaved(&paths) {
            return Ok(false);
        }
        let dir = Self::acquire(paths)?;
        // Whoever held it may have saved meanwhile.
        if !is_unsaved(&dir) {
            return Ok(false);
        }
        fs::remove_file(dir.metrics()).map_err(|source| TrainError::io("remove", dir.metrics(), source))?;
        Ok(true)
    }

    /// The directory of a run that another rank has taken: nothing is locked, and nothing taken away.
    pub(crate) fn of_other_rank(root: impl Into<PathBuf>) -> Self {
        Self {
            paths: RunPaths::new(root),
            lock: None,
            made: Made::Nothing,
        }
    }

    /// The run is about to train: it is not complete any more.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the file that says so cannot be removed.
    pub fn begin(&self) -> Result<(), TrainError> {
        match fs::remove_file(self.run_complete()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TrainError::io("remove", self.run_complete(), error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps the directory even though no step may have been taken, as of a run that was stopped before its first.
    pub fn keep(&mut self) {
        self.made = Made::Nothing;
    }

    fn acquire(paths: RunPaths) -> Result<Self, TrainError> {
        for directory in [paths.samples(), paths.checkpoints()] {
            fs::create_dir_all(directory).map_err(|source| paths.unwritable(source))?;
        }
        let lock = paths.take_lock()?;
        remove_leftovers(&paths.checkpoints()).map_err(|source| paths.unwritable(source))?;
        Ok(Self {
            paths,
            lock: Some(lock),
            made: Made::Nothing,
        })
    }

    /// Takes away what this process made.
    fn discard(&mut self) -> io::Result<()> {
        let kept = match std::mem::replace(&mut self.made, Made::Nothing) {
            Made::Nothing => return Ok(()),
            Made::Directory => None,
            Made::AllBut(names) => Some(names),
        };
        if self.holds_steps() {
            return Ok(());
        }
        // Some systems remove no file that is open.
        self.lock = None;
        let Some(kept) = kept else {
            return fs::remove_dir_all(self.root());
        };
        for entry in fs::read_dir(self.root())? {
            let entry = entry?;
            if kept.contains(&entry.file_name()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // A directory that stays is only in the way: `create` takes it again.
        let _ = self.discard();
    }
}

impl Deref for RunDir {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

/// Makes a directory and the missing ones above it, the outermost first. Those that were made are added to `made`.
fn create_missing(directory: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Ok(()) => made.push(directory.to_owned()),
            // Another process made it meanwhile.
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    fn steps_without_a_checkpoint_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        fs::write(run.plan(), "").unwrap();
        fs::write(run.metrics(), "{\"step\": 1}\n").unwrap();
        assert!(matches!(
            RunDir::forget_unsaved(dir.path()),
            Err(TrainError::RunDirInUse { .. })
        ));
        drop(run);
        assert!(RunDir::check_unused(&RunPaths::new(dir.path())).is_err());
        assert!(RunDir::forget_unsaved(dir.path()).unwrap());
        drop(RunDir::create(dir.path()).unwrap());
        assert!(!RunDir::forget_unsaved(dir.path()).unwrap());
        assert!(!RunDir::forget_unsaved(dir.path().join("none")).unwrap());
    }

    #[test]
    fn a_directory_in_use_names_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::create(dir.path()).unwrap();
        assert_eq!(first.holder(), Some(std::process::id()));
        let error = RunDir::create(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::RunDirInUse { pid: Some(pid), .. } if pid == std::process::id()));
        drop(first);
        assert_eq!(RunPaths::new(dir.path()).holder(), None);
        RunDir::create(dir.path()).unwrap();
    }

    #[test]
    fn a_run_is_not_overwritten_but_may_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(dir.path());
        fs::write(paths.plan(), "").unwrap();
        fs::write(paths.metrics(), "{\"step\":1,\"tokens\":32}\n").unwrap();
        let error = RunDir::create(dir.path()).unwrap_err();
        assert!(matches!(error, TrainError::RunDirTaken { .. }));
        fs::write(paths.run_complete(), "").unwrap();
        let run = RunDir::resume(dir.path()).unwrap();
        run.begin().unwrap();
        assert!(!run.run_complete().exists());
        drop(run);
        assert!(paths.plan().exists() && paths.metrics().exists());
    }

    #[test]
    fn a_start_that_trained_nothing_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |root: &Path| {
            let run = RunDir::create(root).unwrap();
            fs::write(run.plan(), "").unwrap();
            fs::write(run.metrics(), "{\"step\":0,\"tokens\":0,\"val_loss\":10.8}\n").unwrap();
            fs::create_dir(run.checkpoints().join("step-00000000")).unwrap();
            run
        };
        let root = dir.path().join("a");
        drop(begin(&root));
        assert!(!root.exists());

        fs::create_dir(&root).unwrap();
        fs::write(root.join("notes.txt"), "mine").unwrap();
        drop(begin(&root));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        assert!(root.join("notes.txt").exists());

        let mut kept = begin(&root);
        kept.keep();
        drop(kept);
        assert!(root.join("checkpoints/step-00000000").exists());
        assert!(matches!(RunDir::create(&root), Err(TrainError::RunDirTaken { .. })));
    }

    #[test]
    fn what_was_killed_before_its_first_step_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(dir.path());
        fs::write(paths.plan(), "").unwrap();
        fs::write(paths.metrics(), "{\"step\":0,\"tokens\":0}\n{\"st").unwrap();
        RunDir::create(dir.path()).unwrap().keep();
    }

    #[test]
    fn what_a_killed_save_left_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(dir.path());
        for name in [".step-00000002.partial", "step-00000001"] {
            fs::create_dir_all(paths.checkpoints().join(name)).unwrap();
        }
        fs::write(paths.plan(), "").unwrap();
        RunDir::resume(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(paths.checkpoints()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "step-00000001");
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
        assert!(error.to_string().contains("is not writable: "), "{error}");
    }

    #[test]
    fn checking_refuses_what_creating_would_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        RunDir::check_creatable(dir.path().join("a/b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // Empty directories that were there stay.
        fs::create_dir_all(dir.path().join("c/samples")).unwrap();
        RunDir::check_creatable(dir.path().join("c")).unwrap();
        assert!(dir.path().join("c/samples").exists());
        assert_eq!(fs::read_dir(dir.path().join("c")).unwrap().count(), 1);

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mut wrong = vec![file.join("run"), file];
        if cfg!(target_os = "linux") {
            wrong.push("/proc/nope".into());
        }
        for root in wrong {
            let checked = RunDir::check_creatable(&root).unwrap_err();
            assert!(matches!(checked, TrainError::RunDirUnwritable { .. }), "{checked}");
            let created = RunDir::create(&root).unwrap_err();
            assert_eq!(checked.to_string(), created.to_string());
        }

        let held = RunDir::create(dir.path().join("c")).unwrap();
        let error = RunDir::check_creatable(held.root()).unwrap_err();
        assert!(matches!(error, TrainError::RunDirInUse { .. }), "{error}");
        fs::write(held.plan(), "").unwrap();
        fs::write(held.metrics(), "{\"step\":1,\"tokens\":32}\n").unwrap();
        drop(held);
        let error = RunDir::check_creatable(dir.path().join("c")).unwrap_err();
        assert!(matches!(error, TrainError::RunDirTaken { .. }), "{error}");
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
