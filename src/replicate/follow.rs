//! What the engine does about the referrers of an image: which subjects are asked for, and when not to ask at all.

use super::blob::Way;
use super::destination::Destination;
use super::referrers::{self, Bringing, Comparison, Followed, Found, Mode, Wanted};
use super::select::Picked;
use super::source::Source;
use super::{Engine, Error};
use crate::job::{CopyOptions, Parsed};
use crate::oci::{Digest, Manifest};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the referrers of a root refer to. A root that was made smaller is new: nobody has signed it.
pub(super) fn subjects_of(picked: &Picked) -> Vec<Digest> {
    if picked.rewritten_from.is_some() { Vec::new() } else { vec![picked.root.digest.clone()] }
}

impl Engine {
    /// Finds and brings what refers to an image that is there already. Where the manifests below it count too, `root` is read
    /// unless it was.
    pub(super) async fn follow(
        &self,
        wanted: &Parsed,
        way: &Way,
        mut subjects: Vec<Digest>,
        root: Option<&Manifest>,
        chosen: Option<&BTreeSet<Digest>>,
    ) -> Result<Followed, Error> {
        if self.wants_all(wanted, &way.source, &way.destination) {
            let read;
            let root = match root {
                Some(root) => root,
                None => {
                    read = way.source.root(&self.limits).await?;
                    &read
                }
            };
            subjects.extend(referrers::below(&way.source, root, chosen, &self.limits).await?);
        }
        let found = self.find(wanted, &way.source, &way.destination, subjects).await?;
        self.bring(wanted, way, found).await
    }

    /// Whether the manifests below an index are subjects too.
    pub(super) fn wants_all(&self, wanted: &Parsed, source: &Source, destination: &Destination) -> bool {
        wanted_of(wanted, source, destination).is_some_and(|wanted| wanted.all())
    }

    /// What refers to these at the source.
    pub(super) async fn find(
        &self,
        wanted: &Parsed,
        source: &Source,
        destination: &Destination,
        subjects: Vec<Digest>,
    ) -> Result<Found, Error> {
        match wanted_of(wanted, source, destination) {
            Some(wanted) => referrers::find(source, subjects, &wanted, &self.memory, &self.limits).await,
            None => Ok(Found::default()),
        }
    }

    /// Brings what was found and is not there.
    pub(super) async fn bring(&self, wanted: &Parsed, way: &Way, found: Found) -> Result<Followed, Error> {
        let Some(which) = wanted_of(wanted, &way.source, &way.destination) else {
            return Ok(Followed::new(way, &self.memory));
        };
        let comparison = self.comparison(&wanted.options, &way.source, &way.destination);
        Bringing { way: way.clone(), wanted: which, comparison, held: Arc::default() }.bring(found).await
    }

    /// How many referrers of an image are not at the destination. Changes nothing.
    pub(super) async fn count_referrers(
        &self,
        wanted: &Parsed,
        source: &Source,
        destination: &Destination,
        picked: &Picked,
    ) -> Result<u64, Error> {
        let mut subjects = subjects_of(picked);
        if self.wants_all(wanted, source, destination) {
            subjects.extend(referrers::below(source, &picked.root, picked.chosen.as_ref(), &self.limits).await?);
        }
        let found = self.find(wanted, source, destination, subjects).await?;
        self.comparison(&wanted.options, source, destination).missing(&found).await
    }

    fn comparison(&self, options: &CopyOptions, source: &Source, destination: &Destination) -> Comparison {
        let mode = match (options.force, options.verify) {
            (true, _) => Mode::Force,
            (false, true) => Mode::Verify,
            (false, false) => Mode::Missing,
        };
        Comparison {
            source: source.clone(),
            destination: destination.clone(),
            memory: self.memory.clone(),
            limits: self.limits.clone(),
            mode,
            no_clobber: options.no_clobber,
        }
    }
}

/// Which referrers are wanted; None: none. Within one repository they are there already, whatever tag is given.
fn wanted_of(wanted: &Parsed, source: &Source, destination: &Destination) -> Option<Wanted> {
    let is_same = source.repository().is_some() && source.repository() == destination.repository();
    Wanted::of(&wanted.options).filter(|_| !is_same)
}
