//! Brings to the destination what refers to an image and is not there yet, by digest. Tags are left for publishing.

use super::compare::{Comparison, Mode};
use super::end::{Named, subject};
use super::list::{Told, entry};
use super::publish::{Followed, Writes};
use super::{End, Found, Referrer, Wanted, way_out};
use crate::job::{Class, Stage};
use crate::oci::{Content, Digest, Manifest};
use crate::replicate::Error;
use crate::replicate::blob::Way;
use crate::replicate::destination::{Place, put_again};
use crate::replicate::plan::plan;
use crate::replicate::tasks::side_by_side;
use crate::replicate::{resolve, survey, transfer, verify};

/// What all referrers of one copy have in common. Cheap to clone.
#[derive(Clone)]
pub(in crate::replicate) struct Bringing {
    pub way: Way,
    pub wanted: Wanted,
    pub comparison: Comparison,
}

/// A manifest at the destination, with everything below it.
struct Carried {
    manifest: Manifest,
    /// Manifests that were put below it.
    below: u64,
    /// What was missing below it, where that was looked for.
    healed: u64,
}

/// What became of one referrer or tag.
enum Brought {
    Referrer { carried: Carried, subject: Digest, kept: bool },
    Tag { carried: Carried, tag: String },
}

impl Bringing {
    /// Brings what of `found` is not at the destination. When this returns, all of it is there by digest.
    ///
    /// # Errors
    /// The first error that trying again did not help.
    pub async fn bring(&self, found: Found) -> Result<Followed, Error> {
        let listed = self.comparison.listed(&found).await.map_err(way_out)?;
        let missing = found.levels.into_iter().flatten().filter_map(|referrer| {
            let is_listed = listed.contains(&referrer.descriptor.digest);
            (self.comparison.mode != Mode::Missing || !is_listed).then_some((referrer, is_listed))
        });
        let referrers = missing.map(|(referrer, is_listed)| {
            let bringing = self.clone();
            async move { bringing.referrer(referrer, is_listed).await }
        });
        let tags = found.tags.into_iter().map(|tag| {
            let bringing = self.clone();
            async move { bringing.tag(tag).await }
        });
        let at_once = self.way.limits.blobs_at_once;
        let mut brought = side_by_side(referrers, at_once).await.map_err(way_out)?;
        brought.extend(side_by_side(tags, at_once).await.map_err(way_out)?);
        Ok(self.followed(brought.into_iter().flatten()))
    }

    fn followed(&self, brought: impl Iterator<Item = Brought>) -> Followed {
        let mut followed = Followed::default();
        let mut writes = Writes::new(&self.way, &self.comparison.memory);
        for brought in brought {
            followed.pushed += 1;
            match brought {
                Brought::Referrer { carried, subject, kept } => {
                    followed.manifests += carried.below + 1;
                    followed.healed += carried.healed;
                    if !kept {
                        writes.lists.entry(subject).or_default().push(entry(&carried.manifest));
                    }
                }
                Brought::Tag { carried, tag } => {
                    followed.manifests += carried.below;
                    followed.healed += carried.healed;
                    writes.tags.push((tag, carried.manifest));
                }
            }
        }
        if writes.is_needed() {
            // In the same order each time, so that the same list is made each time.
            writes.tags.sort_by(|one, other| one.0.cmp(&other.0));
            followed.writes = Some(writes);
        }
        followed
    }

    /// None: there was nothing to do, or nothing to bring.
    async fn referrer(&self, referrer: Referrer, is_listed: bool) -> Result<Option<Brought>, Error> {
        let Referrer { descriptor, subject: of } = referrer;
        let (source, digest) = (self.way.source.name().clone(), descriptor.digest.clone());
        let manifest = match self.way.source.child(&descriptor, &self.way.limits).await {
            Ok(Some(manifest)) => manifest,
            Err(Error { class: Class::Absent, .. }) | Ok(None) => {
                tracing::warn!(%source, %digest, "a referrer is listed and not there any more, passed over");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if subject(&manifest).is_none_or(|subject| subject.digest != of) {
            tracing::warn!(%source, %digest, subject = %of, "what is listed as a referrer refers to something else, passed over");
            return Ok(None);
        }
        if !self.takes(&manifest, false) {
            return Ok(None);
        }
        let Some(carried) = self.carry(manifest, is_listed).await? else { return Ok(None) };
        let kept = self.put(&carried.manifest).await?;
        Ok(Some(Brought::Referrer { carried, subject: of, kept }))
    }

    /// What a tag of cosign names. None: there is nothing, or the destination has the same.
    async fn tag(&self, tag: String) -> Result<Option<Brought>, Error> {
        let (theirs, ours) = self.comparison.named(&tag).await?;
        let is_same = |digest: &Named| matches!(digest, Named::Digest(_)) && *digest == ours;
        if theirs == Named::Nothing || (is_same(&theirs) && self.comparison.mode == Mode::Missing) {
            return Ok(None);
        }
        let Some(manifest) = self.way.source.tagged(&tag, &self.way.limits).await? else { return Ok(None) };
        if !self.takes(&manifest, true) {
            return Ok(None);
        }
        let is_there = is_same(&Named::Digest(manifest.digest.clone()));
        if is_there && self.comparison.mode == Mode::Missing {
            return Ok(None);
        }
        if self.comparison.no_clobber && !is_there && ours != Named::Nothing {
            let destination = self.way.destination.name();
            let message = format!(
                "the tag {tag} beside {destination} names something else than at the source; --no-clobber forbids to replace it"
            );
            return Err(Error::new(Stage::Survey, Class::Refused, message));
        }
        let carried = self.carry(manifest, is_there).await?;
        Ok(carried.map(|carried| Brought::Tag { carried, tag }))
    }

    /// Cosign says in the layers of what it tags what kind it is.
    fn takes(&self, manifest: &Manifest, by_layers: bool) -> bool {
        let told = Told::by(manifest);
        if self.wanted.takes(told.artifact_type().unwrap_or_default()) {
            return true;
        }
        let Content::Image { blobs, .. } = &manifest.content else { return false };
        by_layers && blobs.iter().any(|blob| self.wanted.takes(&blob.media_type))
    }

    /// Brings everything below `manifest`; in a layout also itself. None: all of it is there, as was looked up.
    async fn carry(&self, manifest: Manifest, is_there: bool) -> Result<Option<Carried>, Error> {
        let way = &self.way;
        let tree = resolve::resolve(&way.source, manifest, None, &way.limits).await?;
        let mut healed = 0;
        let inventory = if is_there && self.comparison.mode == Mode::Verify {
            let gaps = verify::look(&way.destination, &tree, true, &way.limits).await?;
            if gaps.missing == 0 {
                return Ok(None);
            }
            healed = gaps.missing;
            gaps.inventory
        } else {
            survey::survey(&way.destination, &tree, self.comparison.mode == Mode::Force).await?
        };
        let (manifest, below) = transfer::transfer(way, plan(tree, &inventory)).await?;
        Ok(Some(Carried { manifest, below, healed }))
    }

    /// Puts a referrer. True: the destination keeps the list of what refers to its subject.
    async fn put(&self, manifest: &Manifest) -> Result<bool, Error> {
        let Place::Registry { session, .. } = &self.way.destination.place else { return Ok(false) };
        let Some(End::Registry { repository, .. }) = self.way.destination.end() else { return Ok(false) };
        let put = put_again(manifest, || session.put_referrer(&repository, manifest)).await;
        let kept = put.map_err(|cause| self.way.destination.not_put(Stage::Transfer, manifest, &cause))?;
        if kept {
            self.comparison.memory.saw_api(repository.host(), true);
        }
        Ok(kept)
    }
}
