//! The copies that a rule makes of one repository.

use super::select::Decision;
use super::{Rule, listing};
use crate::clock::Clock;
use crate::job::{Class, NewJob};
use crate::oci::{ImageReference, Repository};
use crate::registry::Session;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Why a repository cannot be listed: of which kind, and one line.
pub type Unlisted = (Class, String);

/// A repository of a rule's registry with the decision for each of its tags. The copies are made one tag at a time: a
/// repository may have very many.
pub struct Copies<'a> {
    rule: &'a Rule,
    name: &'a str,
    repository: Repository,
    captures: Vec<String>,
    /// Tags that the destinations have, where those are passed over.
    existing: HashMap<Repository, HashSet<String>>,
    /// In the order of the registry's list.
    pub decisions: Vec<Decision>,
}

/// A tag, what was decided, and the copies it makes, one for each destination.
#[derive(Debug)]
pub struct Decided {
    /// Kept or dropped, and why.
    pub decision: Decision,
    /// None of a tag that is dropped.
    pub jobs: Vec<NewJob>,
}

fn refused(message: String) -> Unlisted {
    (Class::Refused, message)
}

impl<'a> Copies<'a> {
    /// Decides for every tag of a repository.
    ///
    /// # Errors
    /// Tags cannot be listed, or several of them would go to the same destination.
    pub async fn look(
        source: &Session,
        destination: &Session,
        rule: &'a Rule,
        name: &'a str,
        clock: &Clock,
    ) -> Result<Self, Unlisted> {
        let full = format!("{}/{name}", rule.registry);
        let repository =
            Repository::parse(&full).map_err(|error| refused(format!("{full} is no repository: {error}")))?;
        let decisions = match listing::decide(source, rule, &repository, clock).await {
            Ok(decisions) => decisions,
            // The catalog still has it, but it has no tags any more.
            Err(error) if error.class() == Class::Absent && rule.named().is_none() => Vec::new(),
            Err(error) => return Err((error.class(), error.to_string())),
        };
        let several = decisions.iter().filter(|decision| decision.kept).nth(1).is_some();
        if let Some(same) = rule.destinations.iter().find(|destination| several && !destination.tag.tells_tags_apart())
        {
            let message = format!("several tags of {repository} would go to the tag {}: put {{tag}} into it", same.tag);
            return Err(refused(message));
        }
        let captures = rule.captures(name);
        let mut existing = HashMap::new();
        if rule.skip_existing && !decisions.is_empty() {
            for target in rule.targets(name, &captures).map_err(refused)? {
                let tags = match listing::tags(destination, &target, 0).await {
                    Ok(tags) => tags,
                    Err(error) if error.class() == Class::Absent => Vec::new(),
                    Err(error) => return Err((error.class(), error.to_string())),
                };
                existing.insert(target, tags.into_iter().collect());
            }
        }
        Ok(Self { rule, name, repository, captures, existing, decisions })
    }

    /// The tags that are kept.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        self.decisions.iter().filter(|decision| decision.kept).map(|decision| decision.name.clone()).collect()
    }

    /// The copies of a tag that is kept; none when all destinations have it and that is enough.
    ///
    /// # Errors
    /// What is made of it is no reference.
    pub fn jobs(&self, tag: &str) -> Result<Vec<NewJob>, Unlisted> {
        let from = format!("{}:{tag}", self.repository);
        let mut jobs = Vec::new();
        for to in self.rule.references(self.name, &self.captures, tag).map_err(refused)? {
            let job = NewJob::parse(&from, &to, self.rule.options.clone(), Path::new("/"))
                .map_err(|error| refused(format!("{from}: {error}")))?;
            if !self.has(&job) {
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    fn has(&self, job: &NewJob) -> bool {
        let ImageReference::Registry(reference) = &job.parsed.destination else { return false };
        let tag = reference.tag.as_ref().map(ToString::to_string).unwrap_or_default();
        self.existing.get(&reference.repository).is_some_and(|tags| tags.contains(&tag))
    }

    /// Every tag with its copies, for those who show them all.
    ///
    /// # Errors
    /// As for [`jobs`](Self::jobs).
    pub fn all(self) -> Result<Vec<Decided>, Unlisted> {
        let mut all = Vec::with_capacity(self.decisions.len());
        for decision in &self.decisions {
            let mut decision = decision.clone();
            let jobs = if decision.kept { self.jobs(&decision.name)? } else { Vec::new() };
            if decision.kept && jobs.is_empty() {
                decision.kept = false;
                "skip_existing: the destination has it".clone_into(&mut decision.clause);
            }
            all.push(Decided { decision, jobs });
        }
        Ok(all)
    }
}
