//! One attempt at a job that lists a batch: what its rules select becomes jobs, a repository at a time.
//!
//! It may be killed anywhere and begin again: repositories that were listed to their end are passed over, and each copy has a
//! key made of batch and destination. Copies start while the listing goes on. What cannot be listed does not stop the rest: it
//! stands in the row of its repository, and the attempt fails at its end, so that only those are listed again.

use super::Parts;
use super::attempt::Verdict;
use crate::job::batch::{BatchId, Found, Listed};
use crate::job::{Class, Report, Stage};
use crate::mirror::copies::Copies;
use crate::mirror::{Rule, Rules, listing};
use crate::replicate::Error;
use crate::store::{Claim, Fence};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Copies made in one transaction: few enough that claims get their turn between them.
const CHUNK: usize = 100;
/// The pause between two of them, in which other processes get their turn at the database.
const PAUSE: Duration = Duration::from_millis(1);
/// Repositories that are listed at once; the pace of a registry is its own matter.
const LISTED_AT_ONCE: usize = 8;
/// Repositories that a message names.
const NAMED_MOST: usize = 5;
/// Who makes the copies.
const ACTOR: &str = "freightliner";

/// Lists. Whatever was listed until it ends is.
pub(super) async fn run(parts: &Parts, claim: &Claim) -> Verdict {
    let Some(batch) = claim.job.batch_id.as_deref().and_then(|id| id.parse().ok()) else {
        return failed(
            Class::Refused,
            "a job of kind expand belongs to a batch: use freightliner replicate-tree, sync or mirror run".to_owned(),
        );
    };
    let requests = Arc::new(AtomicU64::new(0));
    let mut lister = Lister {
        parts,
        fence: claim.fence(),
        batch,
        done: HashSet::new(),
        found: Found::default(),
        failures: Vec::new(),
        requests: requests.clone(),
    };
    match lister.all(&claim.job.source).await {
        Ok(()) => lister.end(),
        Err(verdict) => verdict,
    }
}

fn failed(class: Class, message: String) -> Verdict {
    Verdict::Failed(Error::new(Stage::List, class, message))
}

/// The database could not be used.
fn backend(error: &crate::store::Error) -> Verdict {
    failed(Class::RETRY, format!("writing down what was listed: {error}"))
}

struct Lister<'a> {
    parts: &'a Parts,
    fence: Fence,
    batch: BatchId,
    /// Repositories that were listed to their end before, by rule.
    done: HashSet<(u32, String)>,
    found: Found,
    failures: Vec<(String, Class, String)>,
    requests: Arc<AtomicU64>,
}

impl Lister<'_> {
    async fn all(&mut self, source: &str) -> Result<(), Verdict> {
        let rules = self.rules(source).await?;
        let before = self.parts.store.batch_repositories(self.batch).await.map_err(|error| backend(&error))?;
        for listed in before.into_iter().filter(|listed| listed.failure.is_none()) {
            self.found.repositories += 1;
            self.found.tags += listed.tags;
            self.found.jobs += listed.kept;
            self.done.insert((listed.rule, listed.repository));
        }
        for (place, rule) in (0..).zip(&rules.rules) {
            self.rule(place, rule).await?;
        }
        Ok(())
    }

    /// The rules of the batch; of a mirror that nobody has listed yet, those of our configuration, which are those of the batch
    /// from then on.
    async fn rules(&self, mirror: &str) -> Result<Rules, Verdict> {
        let store = &self.parts.store;
        let mut said = store.batch_rules(self.batch).await.map_err(|error| backend(&error))?;
        if said.is_none() {
            let Some(rules) = self.parts.settings.mirrors.get(mirror) else {
                // Another worker may know it.
                let message = format!(
                    "there is no mirror `{mirror}` in the configuration of this worker: add [mirrors.{mirror}] and start it again"
                );
                return Err(failed(Class::RETRY, message));
            };
            let kept = store.batch_rules_say(self.fence, rules.to_json()).await.map_err(|error| backend(&error))?;
            if !kept {
                return Err(Verdict::Lost);
            }
            said = store.batch_rules(self.batch).await.map_err(|error| backend(&error))?;
        }
        Rules::from_json(&said.unwrap_or_default()).map_err(|message| failed(Class::Refused, message))
    }

    async fn rule(&mut self, place: u32, rule: &Rule) -> Result<(), Verdict> {
        let session = self.parts.engine.session(rule.options.src_tls_verify, self.requests.clone());
        let whole = match rule.prefix.as_str() {
            "" => rule.registry.clone(),
            prefix => format!("{}/{prefix}", rule.registry),
        };
        let decisions = match listing::repositories(&session, rule).await {
            Ok(decisions) => decisions,
            Err(error) => return self.fail(place, whole, error.class(), error.to_string()).await,
        };
        let kept: Vec<String> =
            decisions.into_iter().filter(|decision| decision.kept).map(|decision| decision.name).collect();
        let clashes = rule.clashes(&kept);
        if !clashes.is_empty() {
            let named = clashes.iter().take(NAMED_MOST).cloned().collect::<Vec<_>>().join("; ");
            let more = clashes.len().saturating_sub(NAMED_MOST);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let message = format!("{named}{more}: nothing of this rule is copied, give each a destination of its own");
            return self.fail(place, whole, Class::Refused, message).await;
        }
        let destination = self.parts.engine.session(rule.options.dest_tls_verify, self.requests.clone());
        let new: Vec<String> = kept
            .into_iter()
            .filter(|name| !self.done.contains(&(place, format!("{}/{name}", rule.registry))))
            .collect();
        let clock = &self.parts.clock;
        let looks =
            new.iter().map(|name| {
                let (session, destination) = (&session, &destination);
                async move {
                    (format!("{}/{name}", rule.registry), Copies::look(session, destination, rule, name, clock).await)
                }
            });
        let mut looks = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LISTED_AT_ONCE);
        while let Some((repository, copies)) = looks.next().await {
            match copies {
                Ok(copies) => self.take(place, repository, !rule.tags.names.is_empty(), copies).await?,
                Err((class, message)) => self.fail(place, repository, class, message).await?,
            }
        }
        Ok(())
    }

    /// Makes the copies of a repository, and writes down that it is listed.
    async fn take(&mut self, rule: u32, repository: String, named: bool, copies: Copies<'_>) -> Result<(), Verdict> {
        let mut kept = 0;
        let mut clashes = BTreeSet::new();
        let mut wrong = None;
        let mut jobs = Vec::with_capacity(CHUNK);
        let tags = copies.kept();
        for (at, tag) in tags.iter().enumerate() {
            match copies.jobs(tag) {
                Ok(made) => jobs.extend(made),
                // The others are copied all the same.
                Err(error) => wrong = Some(error),
            }
            if jobs.len() < CHUNK && at + 1 < tags.len() {
                continue;
            }
            kept += u64::try_from(jobs.len()).unwrap_or(u64::MAX);
            let taken = self.parts.store.batch_take(self.fence, self.batch, std::mem::take(&mut jobs), ACTOR).await;
            match taken.map_err(|error| backend(&error))? {
                Some(taken) => clashes.extend(taken.clashes),
                // Lost, or the batch was called off: the fence tells which.
                None => return Err(Verdict::Cancelled),
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Some((destination, one, other)) = clashes.first() {
            let message = format!(
                "{other} and {one} would both go to {destination}: only the second is copied, give each a destination of its own"
            );
            return self.fail(rule, repository, Class::Refused, message).await;
        }
        if let Some((class, message)) = wrong {
            return self.fail(rule, repository, class, message).await;
        }
        let tags = if named { 0 } else { u64::try_from(copies.decisions.len()).unwrap_or(u64::MAX) };
        self.found.repositories += 1;
        self.found.tags += tags;
        self.found.jobs += kept;
        self.note(Listed { rule, repository, tags, kept, failure: None }).await
    }

    async fn fail(&mut self, rule: u32, repository: String, class: Class, message: String) -> Result<(), Verdict> {
        tracing::warn!(%repository, error = %message, "a repository could not be listed");
        self.failures.push((repository.clone(), class, message.clone()));
        let failure = Some((class.as_str().to_owned(), message));
        self.note(Listed { rule, repository, tags: 0, kept: 0, failure }).await
    }

    async fn note(&self, listed: Listed) -> Result<(), Verdict> {
        match self.parts.store.batch_listed(self.fence, self.batch, listed).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Verdict::Cancelled),
            Err(error) => Err(backend(&error)),
        }
    }

    fn end(self) -> Verdict {
        let requests = self.requests.load(Ordering::Relaxed);
        if self.failures.is_empty() {
            return Verdict::Done(Report { requests, listed: Some(self.found), ..Report::default() });
        }
        let passing = self.failures.iter().find(|(_, class, _)| matches!(class, Class::Retry { .. }));
        let class = passing.or(self.failures.first()).map_or(Class::RETRY, |(_, class, _)| *class);
        let named: Vec<&str> = self.failures.iter().take(NAMED_MOST).map(|(_, _, message)| message.as_str()).collect();
        let more = self.failures.len().saturating_sub(NAMED_MOST);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let message = format!(
            "{} could not be listed, the other {} are: {}{more}",
            self.failures.len(),
            self.found.repositories,
            named.join("; ")
        );
        failed(class, message)
    }
}
