//! The ranks of a run before its first step: they must come to the same plan, or none of them begins.

use crate::error::TrainError;
use gpt2_ranks::{LostRank, Monitor, ProcessGroup, RankInfo, Timeouts};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The ranks that train one model together, met and connected, as one of them sees them.
#[derive(Debug)]
pub struct Group {
    info: RankInfo,
    program: String,
    processes: ProcessGroup,
}

impl Group {
    /// Meets the other ranks. `program` is what they must all be, down to its version; `on_loss` is called once, from a thread of
    /// its own, as soon as one of them is lost.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if they do not all come.
    pub fn join(
        info: RankInfo,
        program: String,
        timeouts: Timeouts,
        on_loss: impl Fn(&LostRank) + Send + Sync + 'static,
    ) -> Result<Self, TrainError> {
        let processes = ProcessGroup::join(&info, timeouts, on_loss)?;
        Ok(Self {
            info,
            program,
            processes,
        })
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.info.rank
    }

    /// Who this rank is.
    pub fn info(&self) -> &RankInfo {
        &self.info
    }

    /// What watches the other ranks.
    pub(crate) fn monitor(&self) -> &Monitor {
        self.processes.monitor()
    }

    pub(crate) fn into_processes(self) -> ProcessGroup {
        self.processes
    }

    /// What rank 0 has come to, on all ranks; the others give `None`.
    ///
    /// # Errors
    /// That of rank 0 there, [`TrainError::OtherRank`] on the others. No rank begins then.
    pub(crate) fn of_first<T>(&mut self, own: Option<Result<T, TrainError>>) -> Result<Shared<T>, TrainError>
    where
        T: Serialize + DeserializeOwned,
    {
        let told: Option<&T> = own.as_ref().and_then(|own| own.as_ref().ok());
        let message = serde_json::to_vec(&told).unwrap_or_default();
        let received = self.processes.broadcast(&message)?;
        match own {
            Some(Ok(own)) => Ok(Shared::Own(own)),
            Some(Err(error)) => self.none_begins(error),
            None => match serde_json::from_slice::<Option<T>>(&received) {
                Ok(Some(told)) => Ok(Shared::Told(told)),
                _ => self.none_begins(TrainError::OtherRank),
            },
        }
    }

    /// What this rank has come to, if all ranks have, and to the same: `facts` gives lines such as `lr = 0.001`.
    ///
    /// # Errors
    /// The rank's own; else, on rank 0, that of another rank or in what one differs, and [`TrainError::OtherRank`] on the
    /// others. No rank begins then.
    pub(crate) fn agree<T>(
        &mut self,
        own: Result<T, TrainError>,
        facts: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<T, TrainError> {
        let told: Result<Vec<String>, String> = match &own {
            Ok(own) => Ok([vec![format!("program = {}", self.program)], facts(own)].concat()),
            Err(error) => Err(error.to_string()),
        };
        let message = serde_json::to_vec(&told).unwrap_or_default();
        let all = self.processes.all_gather(&message)?;
        let all: Vec<Result<Vec<String>, String>> = all
            .iter()
            .map(|told| serde_json::from_slice(told).unwrap_or_else(|error| Err(error.to_string())))
            .collect();
        match (own, disagreement(&all)) {
            (Err(error), _) => self.none_begins(error),
            (Ok(_), Some(error)) if self.rank() == 0 => self.none_begins(error),
            (Ok(_), Some(_)) => self.none_begins(TrainError::OtherRank),
            (Ok(own), None) => Ok(own),
        }
    }

    /// Ends the group on all ranks together, so that none takes another for lost.
    fn none_begins<T>(&self, error: TrainError) -> Result<T, TrainError> {
        self.monitor().finish()?;
        Err(error)
    }
}

/// What rank 0 has come to.
pub(crate) enum Shared<T> {
    /// On rank 0 itself.
    Own(T),
    /// On another rank.
    Told(T),
}

/// Why the ranks cannot begin, given what each has told.
fn disagreement(all: &[Result<Vec<String>, String>]) -> Option<TrainError> {
    for (rank, told) in all.iter().enumerate() {
        if let Err(message) = told {
            return Some(TrainError::RankCannotBegin {
                rank,
                message: message.clone(),
            });
        }
    }
    let facts: Vec<&Vec<String>> = all.iter().flatten().collect();
    let (first, others) = facts.split_first()?;
    others.iter().enumerate().find_map(|(nth, other)| {
        let missing = String::new();
        let lines = 0..first.len().max(other.len());
        let (own, other) = lines
            .map(|line| [first, *other].map(|facts| facts.get(line).unwrap_or(&missing)))
            .map(|[own, other]| (own, other))
            .find(|(own, other)| own != other)?;
        let (what, own) = own.split_once(" = ").unwrap_or(("what it has", own));
        let other = other.split_once(" = ").map_or(other.as_str(), |(_, value)| value);
        Some(TrainError::RanksDiffer {
            rank: nth + 1,
            what: what.to_owned(),
            own: own.to_owned(),
            other: other.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let facts = |lr: &str| Ok(vec!["program = gpt2".to_owned(), format!("lr = {lr}")]);
        assert!(disagreement(&[facts("1"), facts("1")]).is_none());
        let error = disagreement(&[facts("1"), facts("1"), facts("2")]).unwrap();
        assert_eq!(
            error.to_string(),
            "rank 2 differs from rank 0 in lr; start all ranks alike: 1 on rank 0, 2 on rank 2"
        );
        let error = disagreement(&[facts("1"), Err("no device".into())]).unwrap();
        assert_eq!(error.to_string(), "rank 1 cannot begin: no device");
    }
}
