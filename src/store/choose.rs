//! Which of the waiting jobs a claim takes: a pure decision over what the database showed.
//!
//! Best priority first, then the oldest. At most one job a target, none whose target is being written, and never more running
//! jobs of a queue or for a registry than their limits allow. The databases show a bounded window of candidates; whether a
//! deeper look is worth it is said by [`Chosen::short`].

use crate::job::JobId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A pending job that might be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The job.
    pub id: JobId,
    /// Its queue.
    pub queue: String,
    /// The registry it writes to.
    pub registry: String,
    /// The canonical destination.
    pub target: String,
    /// Lower runs first.
    pub priority: i64,
    /// A running job writes its target.
    pub busy: bool,
}

/// Somebody who asks for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// At most so many.
    pub room: usize,
    /// Only from this queue.
    pub queue: Option<String>,
    /// Only this job.
    pub only: Option<JobId>,
}

impl Asker {
    fn takes(&self, candidate: &Candidate) -> bool {
        self.only.is_none_or(|only| only == candidate.id)
            && self.queue.as_ref().is_none_or(|queue| *queue == candidate.queue)
    }
}

/// How many more jobs may run; what is not named has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// By queue; 0 for a paused one.
    pub queues: HashMap<String, u32>,
    /// By registry.
    pub registries: HashMap<String, u32>,
}

impl Limits {
    /// A job of this pair may run.
    #[must_use]
    pub fn allow(&self, queue: &str, registry: &str) -> bool {
        self.queues.get(queue) != Some(&0) && self.registries.get(registry) != Some(&0)
    }

    fn take(&mut self, candidate: &Candidate) {
        for left in
            [self.queues.get_mut(&candidate.queue), self.registries.get_mut(&candidate.registry)].into_iter().flatten()
        {
            *left = left.saturating_sub(1);
        }
    }
}

/// The decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Jobs, each with the index of its asker.
    pub jobs: Vec<(JobId, usize)>,
    /// Some asker, not bound to one job, has room left: a deeper look may find more.
    pub short: bool,
}

/// Chooses. Each candidate is there once; their order does not matter. An asker that comes first is served first.
#[must_use]
pub fn choose(mut candidates: Vec<Candidate>, askers: &[Asker], mut limits: Limits) -> Chosen {
    candidates.sort_by_key(|candidate| (candidate.priority, candidate.id));
    let mut room: Vec<usize> = askers.iter().map(|asker| asker.room).collect();
    let mut targets = HashSet::new();
    let mut jobs = Vec::new();
    for candidate in &candidates {
        if candidate.busy || !limits.allow(&candidate.queue, &candidate.registry) {
            continue;
        }
        let Some(asker) = (0..askers.len()).find(|at| room[*at] > 0 && askers[*at].takes(candidate)) else { continue };
        if targets.insert(candidate.target.as_str()) {
            limits.take(candidate);
            room[asker] -= 1;
            jobs.push((candidate.id, asker));
        }
    }
    let short = (0..askers.len()).any(|at| room[at] > 0 && askers[at].only.is_none());
    Chosen { jobs, short }
}

/// What limits leave, from how many run: `running` by name, `limits` by name.
#[must_use]
pub fn left(limits: &BTreeMap<String, u32>, running: &HashMap<String, u64>) -> HashMap<String, u32> {
    limits
        .iter()
        .map(|(name, limit)| {
            let runs = u32::try_from(running.get(name).copied().unwrap_or(0)).unwrap_or(u32::MAX);
            (name.clone(), limit.saturating_sub(runs))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: JobId, priority: i64, queue: &str, registry: &str, target: &str) -> Candidate {
        let [queue, registry, target] = [queue, registry, target].map(str::to_owned);
        Candidate { id, queue, registry, target, priority, busy: false }
    }

    fn any(room: usize) -> Asker {
        Asker { room, queue: None, only: None }
    }

    fn ids(chosen: &Chosen) -> Vec<JobId> {
        chosen.jobs.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn the_best_first_and_one_a_target() {
        let candidates = vec![
            candidate(1, 100, "a", "r", "x"),
            candidate(2, 50, "a", "r", "x"),
            candidate(3, 100, "a", "r", "y"),
            Candidate { busy: true, ..candidate(4, 1, "a", "r", "z") },
            candidate(5, 100, "b", "r", "w"),
        ];
        let chosen = choose(candidates.clone(), &[any(2)], Limits::default());
        assert_eq!((ids(&chosen), chosen.short), (vec![2, 3], false));
        let chosen = choose(candidates, &[any(9)], Limits::default());
        assert_eq!((ids(&chosen), chosen.short), (vec![2, 3, 5], true));
    }

    #[test]
    fn limits_of_queues_and_registries_hold_together() {
        let candidates: Vec<_> = (1..=6)
            .map(|id| {
                candidate(
                    id,
                    100,
                    if id % 2 == 0 { "even" } else { "odd" },
                    if id < 4 { "r" } else { "s" },
                    &id.to_string(),
                )
            })
            .collect();
        let mut limits = Limits::default();
        limits.queues.insert("even".to_owned(), 1);
        limits.registries.insert("r".to_owned(), 1);
        // 1 fills r, so 2 and 3 wait; 4 fills even, so 6 waits; 5 is free.
        assert_eq!(ids(&choose(candidates.clone(), &[any(9)], limits.clone())), [1, 4, 5]);
        limits.queues.insert("odd".to_owned(), 0);
        assert_eq!(ids(&choose(candidates, &[any(9)], limits)), [2]);
    }

    #[test]
    fn askers_get_what_they_asked_for() {
        let candidates: Vec<_> =
            (1..=4).map(|id| candidate(id, 100, if id < 3 { "a" } else { "b" }, "r", &id.to_string())).collect();
        let askers = [
            Asker { room: 1, queue: None, only: Some(4) },
            Asker { room: 1, queue: Some("b".to_owned()), only: None },
            any(1),
        ];
        let chosen = choose(candidates, &askers, Limits::default());
        assert_eq!((chosen.jobs, chosen.short), (vec![(1, 2), (3, 1), (4, 0)], false));
    }

    #[test]
    fn what_runs_counts_against_a_limit() {
        let limits = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let running = HashMap::from([("b".to_owned(), 5), ("c".to_owned(), 1)]);
        assert_eq!(left(&limits, &running), HashMap::from([("a".to_owned(), 2), ("b".to_owned(), 0)]));
    }
}
