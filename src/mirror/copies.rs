//! The copies that a rule makes of one repository.

use super::select::Decision;
use super::{Rule, listing};
use crate::clock::Clock;
use crate::job::{Class, NewJob};
use crate::oci::{ImageReference, Repository};
use crate::registry::Session;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Why a repository cannot be listed: of which kind, and one line.
pub type Unlisted = (Class, String);

/// A tag, what was decided, and the copies it makes, one for each destination.
#[derive(Debug)]
pub struct Decided {
    /// Kept or dropped, and why.
    pub decision: Decision,
    /// None of a tag that is dropped.
    pub jobs: Vec<NewJob>,
}

/// Decides for every tag of a repository of the rule's registry. Each destination is there once.
///
/// # Errors
/// Tags cannot be listed, or what is made of them is no reference, or the same for two of them.
pub async fn decide(
    source: &Session,
    destination: &Session,
    rule: &Rule,
    name: &str,
    clock: &Clock,
) -> Result<Vec<Decided>, Unlisted> {
    let full = format!("{}/{name}", rule.registry);
    let refused = |message: String| (Class::Refused, message);
    let repository = Repository::parse(&full).map_err(|error| refused(format!("{full} is no repository: {error}")))?;
    let decisions = match listing::decide(source, rule, &repository, clock).await {
        Ok(decisions) => decisions,
        // The catalog still has it, but it has no tags any more.
        Err(error) if error.class() == Class::Absent && rule.named().is_none() => Vec::new(),
        Err(error) => return Err((error.class(), error.to_string())),
    };
    let captures = rule.captures(name);
    let mut taken: HashSet<String> = HashSet::new();
    let mut decided = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let mut jobs = Vec::new();
        if decision.kept {
            let from = format!("{repository}:{}", decision.name);
            for to in rule.references(name, &captures, &decision.name).map_err(refused)? {
                let job = NewJob::parse(&from, &to, rule.options.clone(), Path::new("/"))
                    .map_err(|error| refused(format!("{from}: {error}")))?;
                if !taken.insert(job.parsed.dest_key()) {
                    let message = format!("several tags of {repository} would go to {to}: put {{tag}} into it");
                    return Err(refused(message));
                }
                jobs.push(job);
            }
        }
        decided.push(Decided { decision, jobs });
    }
    if rule.skip_existing {
        skip_existing(destination, &mut decided).await?;
    }
    Ok(decided)
}

/// Drops copies to tags that the destination has.
async fn skip_existing(session: &Session, decided: &mut [Decided]) -> Result<(), Unlisted> {
    let mut known: BTreeMap<Repository, HashSet<String>> = BTreeMap::new();
    for Decided { decision, jobs } in decided {
        let mut left = Vec::new();
        for job in jobs.drain(..) {
            let ImageReference::Registry(reference) = &job.parsed.destination else {
                left.push(job);
                continue;
            };
            if !known.contains_key(&reference.repository) {
                let tags = match listing::tags(session, &reference.repository, 0).await {
                    Ok(tags) => tags,
                    Err(error) if error.class() == Class::Absent => Vec::new(),
                    Err(error) => return Err((error.class(), error.to_string())),
                };
                known.insert(reference.repository.clone(), tags.into_iter().collect());
            }
            let tag = reference.tag.as_ref().map(ToString::to_string).unwrap_or_default();
            if !known.get(&reference.repository).is_some_and(|tags| tags.contains(&tag)) {
                left.push(job);
            }
        }
        if decision.kept && left.is_empty() {
            decision.kept = false;
            "skip_existing: the destination has it".clone_into(&mut decision.clause);
        }
        *jobs = left;
    }
    Ok(())
}
