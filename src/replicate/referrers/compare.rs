//! What of the referrers at the source the destination has, told by lists and digests alone.

use super::end::{Named, Question};
use super::{Found, Memory, way_out};
use crate::job::{Class, Stage};
use crate::oci::Digest;
use crate::replicate::destination::Destination;
use crate::replicate::error::Cause;
use crate::replicate::source::Source;
use crate::replicate::tasks::side_by_side;
use crate::replicate::{Error, Limits};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How much is believed of what the destination says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replicate) enum Mode {
    /// What it lists is there.
    Missing,
    /// What it lists is looked at, down to the blobs.
    Verify,
    /// Everything is brought again.
    Force,
}

/// Both ends of a copy, to be compared. Cheap to clone.
#[derive(Clone)]
pub(in crate::replicate) struct Comparison {
    pub source: Source,
    pub destination: Destination,
    pub memory: Memory,
    pub limits: Arc<Limits>,
    pub mode: Mode,
    pub no_clobber: bool,
}

impl Comparison {
    /// How many of `found` are not at the destination. Changes nothing.
    pub async fn missing(&self, found: &Found) -> Result<u64, Error> {
        let listed = self.listed(found).await.map_err(way_out)?;
        let all = found.levels.iter().flatten();
        let mut missing = all.filter(|referrer| !listed.contains(&referrer.descriptor.digest)).count();
        for tag in &found.tags {
            let (theirs, ours) = self.named(tag).await.map_err(way_out)?;
            missing += usize::from(theirs != Named::Nothing && theirs != ours);
        }
        Ok(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    /// The referrers that the destination lists, of those that were found. One list for each subject that has referrers; none
    /// for what is not there itself.
    pub(super) async fn listed(&self, found: &Found) -> Result<BTreeSet<Digest>, Error> {
        let mut listed = BTreeSet::new();
        let Some(end) = self.destination.end().filter(|_| self.mode != Mode::Force) else { return Ok(listed) };
        let (memory, limits) = (self.memory.clone(), self.limits.clone());
        let question = Question { end, stage: Stage::Survey, only: None, is_source: false, memory, limits };
        let mut missing: BTreeSet<&Digest> = BTreeSet::new();
        for level in &found.levels {
            let subjects: BTreeSet<&Digest> =
                level.iter().map(|referrer| &referrer.subject).filter(|subject| !missing.contains(subject)).collect();
            let questions = subjects.into_iter().cloned().map(|subject| {
                let question = question.clone();
                async move {
                    match question.referrers_of(&subject).await {
                        // Unknown counts as missing: what is brought once more does no harm.
                        Err(error) if !matches!(error.class, Class::Retry { .. }) => {
                            tracing::debug!(%subject, %error, "the destination does not tell what refers to it");
                            Ok(Vec::new())
                        }
                        listed => listed,
                    }
                }
            });
            let answers = side_by_side(questions, self.limits.blobs_at_once).await?;
            listed.extend(answers.into_iter().flatten().map(|listed| listed.digest));
            missing.extend(level.iter().map(|one| &one.descriptor.digest).filter(|digest| !listed.contains(*digest)));
        }
        Ok(listed)
    }

    /// What the tag names at the source and at the destination. The latter is asked only when the former is something.
    pub(super) async fn named(&self, tag: &str) -> Result<(Named, Named), Error> {
        let failed = |stage, place: &str, cause: &dyn Cause| {
            Error::new(stage, cause.class(), format!("looking for the tag {tag} beside {place}: {cause}"))
        };
        let theirs = self.source.end().named(tag).await;
        let theirs = theirs.map_err(|cause| failed(Stage::Resolve, self.source.name(), cause.as_ref()))?;
        let ours = match self.destination.end() {
            Some(end) if theirs != Named::Nothing => end.named(tag).await,
            _ => return Ok((theirs, Named::Nothing)),
        };
        match ours {
            Ok(ours) => Ok((theirs, ours)),
            // As for the image itself: some registries do not let a repository be looked at that is not there yet.
            Err(cause) if cause.class() == Class::Denied && !self.no_clobber => Ok((theirs, Named::Nothing)),
            Err(cause) => Err(failed(Stage::Survey, self.destination.name(), cause.as_ref())),
        }
    }
}
