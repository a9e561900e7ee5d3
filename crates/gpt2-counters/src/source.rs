//! The one way to count.

use crate::counts::Counts;
use crate::error::CountersError;

/// What counts around a piece of work: [`start`](Self::start), the work, [`stop`](Self::stop), as often as wanted.
pub trait CounterSource {
    /// What the counts are of, for people.
    fn describe(&self) -> String;

    /// Begins to count from zero.
    ///
    /// # Errors
    /// [`CountersError::AlreadyStarted`], or if the source fails. That the machine refuses a counter is no error: the
    /// counter is listed in [`Counts::missing`].
    fn start(&mut self) -> Result<(), CountersError>;

    /// Ends counting: what was counted since [`start`](Self::start).
    ///
    /// # Errors
    /// [`CountersError::NotStarted`], or if the source fails.
    fn stop(&mut self) -> Result<Counts, CountersError>;
}

/// Counts around `work`.
///
/// # Errors
/// Those of [`CounterSource::start`] and [`CounterSource::stop`].
pub fn count<T>(source: &mut dyn CounterSource, work: impl FnOnce() -> T) -> Result<(T, Counts), CountersError> {
    source.start()?;
    let result = work();
    Ok((result, source.stop()?))
}

/// Adds up counts of several pieces of work, for a caller that cannot return errors where the work begins and ends.
#[derive(Debug)]
pub struct Total<S> {
    source: S,
    counts: Option<Counts>,
    error: Option<CountersError>,
}

impl<S: CounterSource> Total<S> {
    /// Nothing yet.
    pub fn new(source: S) -> Self {
        Self {
            source,
            counts: None,
            error: None,
        }
    }

    /// A piece of work begins.
    pub fn start(&mut self) {
        if self.error.is_none() {
            self.error = self.source.start().err();
        }
    }

    /// It ends.
    pub fn stop(&mut self) {
        if self.error.is_some() {
            return;
        }
        match (self.source.stop(), &mut self.counts) {
            (Ok(counts), Some(sum)) => sum.add(&counts),
            (Ok(counts), none) => *none = Some(counts),
            (Err(error), _) => self.error = Some(error),
        }
    }

    /// The sum.
    ///
    /// # Errors
    /// The first error of the source; [`CountersError::NotStarted`] if nothing was counted.
    pub fn finish(self) -> Result<Counts, CountersError> {
        match self.error {
            Some(error) => Err(error),
            None => self.counts.ok_or(CountersError::NotStarted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One second each time, and a failure at the third.
    struct Failing(u32);

    impl CounterSource for Failing {
        fn describe(&self) -> String {
            String::new()
        }

        fn start(&mut self) -> Result<(), CountersError> {
            self.0 += 1;
            if self.0 < 3 {
                Ok(())
            } else {
                Err(CountersError::AlreadyStarted)
            }
        }

        fn stop(&mut self) -> Result<Counts, CountersError> {
            Ok(Counts {
                elapsed_sec: 1.0,
                ..Counts::default()
            })
        }
    }

    #[test]
    fn a_total_adds_up_and_keeps_the_first_error() {
        let mut total = Total::new(Failing(0));
        for _ in 0..2 {
            total.start();
            total.stop();
        }
        assert!((total.finish().unwrap().elapsed_sec - 2.0).abs() < 1e-12);

        let mut total = Total::new(Failing(1));
        for _ in 0..4 {
            total.start();
            total.stop();
        }
        assert!(matches!(total.finish(), Err(CountersError::AlreadyStarted)));
        assert!(matches!(
            Total::new(Failing(0)).finish(),
            Err(CountersError::NotStarted)
        ));
    }
}
