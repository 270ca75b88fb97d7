//! The last step: the one write that others can see, and the report of what it took.

use super::destination::Destination;
use super::hints::Believed;
use super::referrers::Followed;
use super::{Attempt, Error};
use crate::job::{Class, How, Report};
use crate::oci::{Digest, Manifest};
use crate::tempfiles::TempFiles;
use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Ready to publish, or nothing to do: [`already_present`](Self::already_present).
#[must_use = "nothing is visible at the destination before this is published"]
pub struct Staged {
    digest: Digest,
    /// None: there is nothing to write.
    image: Option<Image>,
    /// None: referrers were no matter.
    followed: Option<Followed>,
    /// What was missing below a digest that the destination had; None: that was not looked for.
    healed: Option<u64>,
}

/// What is written last.
pub(super) struct Root {
    pub manifest: Manifest,
    /// It names images that were not asked for.
    pub sparse: bool,
    /// The source's index, of which this one is a part.
    pub rewritten_from: Option<Digest>,
    /// Blobs below it that nobody has looked for.
    pub believed: Option<Believed>,
    /// It was refused, and what the registry named was brought.
    pub mended: bool,
}

impl Root {
    /// The registry has refused it. Ok: what it misses was brought, and the root may be put again.
    async fn refused(&mut self, error: Error) -> Result<(), Error> {
        // A sparse index is refused for its children, not for their blobs.
        let is_about_blobs = error.misses && error.class != Class::Refused;
        let Some(believed) = self.believed.as_mut().filter(|_| is_about_blobs) else { return Err(error) };
        if error.missing.is_empty() || std::mem::replace(&mut self.mended, true) {
            believed.refuted().await;
            return Err(error);
        }
        believed.bring_named(&error.missing).await
    }
}

/// What became of publishing.
pub enum Published {
    /// All of it is visible.
    Done(Report),
    /// The root is not: the registry did not have some of what was believed to be there, which is there now. To be published
    /// again; this comes once at most.
    Again(Box<Staged>),
}

/// Everything under `root` is at the destination.
struct Image {
    destination: Destination,
    root: Root,
    temp: TempFiles,
    manifests_pushed: u64,
}

impl Staged {
    /// The destination names `digest` already.
    pub(super) fn nothing(digest: Digest) -> Self {
        Self { digest, image: None, followed: None, healed: None }
    }

    /// All but the root's tag is there; `manifests_pushed` were put on the way.
    pub(super) fn image(destination: Destination, root: Root, temp: TempFiles, manifests_pushed: u64) -> Self {
        let digest = root.manifest.digest.clone();
        let image = Some(Image { destination, root, temp, manifests_pushed });
        Self { digest, image, followed: None, healed: None }
    }

    /// The same with what became of its referrers.
    pub(super) fn with(self, followed: Followed) -> Self {
        Self { followed: Some(followed), ..self }
    }

    /// The same, with so much missing below a digest that the destination had.
    pub(super) fn verified(self, healed: u64) -> Self {
        Self { healed: Some(healed), ..self }
    }

    /// The destination has the digest of the source already: publishing does not write it.
    #[must_use]
    pub fn already_present(&self) -> bool {
        self.image.is_none()
    }

    /// Publishing writes a tag, of the image or of its referrers.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.image.is_some() || self.followed.as_ref().is_some_and(Followed::writes)
    }

    /// What the destination has, or is about to have, under its reference.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.already_present();
        f.debug_struct("Staged")
            .field("digest", &self.digest)
            .field("already_present", &present)
            .finish_non_exhaustive()
    }
}

/// Writes the tags that belong to referrers, then the root under the destination's reference, and nothing else.
pub(super) async fn publish(mut staged: Staged, attempt: &Attempt) -> Result<Published, Error> {
    let mut report = Report { digest: staged.digest.to_string(), already_present: true, ..Report::default() };
    report.verified = staged.healed.is_some();
    report.healed = staged.healed.unwrap_or_default();
    if let Some(followed) = &mut staged.followed {
        followed.publish().await?;
    }
    if let Some(image) = &mut staged.image {
        attempt.publishing.get_or_init(|| report.digest.clone());
        let root = &mut image.root;
        let patient = root.believed.is_none() || root.mended;
        let published = image.destination.publish(&root.manifest, root.sparse, patient, &image.temp).await;
        if let Err(error) = published {
            root.refused(error).await?;
            return Ok(Published::Again(Box::new(staged)));
        }
        report.rewritten_from = root.rewritten_from.as_ref().map(ToString::to_string);
        report.already_present = false;
        report.manifests_pushed = image.manifests_pushed + 1;
    }
    if let Some(mut followed) = staged.followed {
        // Again, because the root may refer to something itself.
        followed.publish().await?;
        report.healed += followed.healed;
        report.referrers_pushed = followed.pushed;
        report.manifests_pushed += followed.manifests;
    }
    for transfer in attempt.transfers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        match transfer.how {
            How::Copied => {
                report.blobs_copied += 1;
                report.bytes_copied += transfer.bytes;
            }
            How::Mounted => report.blobs_mounted += 1,
            How::Present => report.blobs_present += 1,
            How::Resumed => {
                report.blobs_resumed += 1;
                report.bytes_copied += transfer.bytes.saturating_sub(transfer.resumed);
                report.bytes_resumed += transfer.resumed;
            }
        }
    }
    report.requests = attempt.requests.load(Ordering::Relaxed);
    Ok(Published::Done(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Transfer;
    use crate::oci::Algorithm;

    #[tokio::test]
    async fn a_report_counts_what_the_attempt_did() {
        let attempt = Attempt::default();
        let transfer = |how, bytes| Transfer {
            registry: "example.com".to_owned(),
            repository: "app".to_owned(),
            digest: String::new(),
            bytes,
            resumed: 0,
            how,
        };
        attempt.transfers.lock().unwrap().extend([
            transfer(How::Copied, 7),
            transfer(How::Copied, 5),
            transfer(How::Mounted, 100),
            transfer(How::Present, 1000),
        ]);
        attempt.requests.store(9, Ordering::Relaxed);
        let digest = Digest::of(Algorithm::Sha256, b"root");
        let staged = Staged::nothing(digest.clone());
        assert!(staged.already_present());
        let Published::Done(report) = publish(staged, &attempt).await.unwrap() else { panic!("nothing was refused") };
        let expected = Report {
            digest: digest.to_string(),
            already_present: true,
            blobs_copied: 2,
            blobs_mounted: 1,
            blobs_present: 1,
            bytes_copied: 12,
            requests: 9,
            ..Report::default()
        };
        assert_eq!(report, expected);
    }
}
