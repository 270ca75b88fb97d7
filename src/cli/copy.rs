//! The options of a copy, shared by `replicate` and `enqueue`.

use super::batch::How;
use super::error::Result;
use super::{Context, when};
use crate::clock::UnixMillis;
use crate::job::{CopyOptions, NewJob, PlatformMode, Referrers};
use crate::oci::Platform;
use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use std::time::Duration;

/// How to copy, and when.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CopyArgs {
    /// Fail when the destination tag exists with another digest; the default is to move it.
    #[arg(long)]
    pub no_clobber: bool,
    /// Go through everything again although the digests are equal.
    #[arg(long)]
    pub force: bool,
    /// When the digests are equal, look whether everything below is there all the same, and bring what is missing.
    #[arg(long)]
    pub verify: bool,
    /// Say what would be done; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Lower runs first [default: 100].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i64>,
    /// Not before this time, for example 2026-11-23T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = when::time, conflicts_with = "after")]
    pub at: Option<UnixMillis>,
    /// Not before this much time has passed, for example 30s, 5m, 2h, 1d or 1h30m.
    #[arg(id = "after", long = "in", value_name = "DURATION", value_parser = when::duration)]
    pub after: Option<Duration>,
    /// Attempts before it is given up [default: 8].
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<i64>,
    /// A name for this request: asking for it again finds the same job.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// The queue to wait in [default: default].
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// Verify TLS at the source; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    pub src_tls_verify: Option<bool>,
    /// Verify TLS at the destination; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = BoolishValueParser::new())]
    pub dest_tls_verify: Option<bool>,
    /// Copy the referrers (signatures, attestations, SBOMs) of what the reference names, or of the manifests below an index
    /// too [default: root].
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "root",
        value_parser = referrers())]
    pub referrers: Option<Referrers>,
    /// Copy no referrers.
    #[arg(long, conflicts_with_all = ["referrers", "artifact_type"])]
    pub no_referrers: bool,
    /// Of the referrers, copy only those of this artifact type (may be given several times).
    #[arg(long, value_name = "TYPE")]
    pub artifact_type: Vec<String>,
    /// Copy these tags, several with commas, as one batch; SRC and DST are repositories then.
    #[arg(long, value_name = "TAGS", value_delimiter = ',', conflicts_with = "all_tags")]
    pub tags: Option<Vec<String>>,
    /// Copy all tags of a repository, as one batch; SRC and DST are repositories then.
    #[arg(long)]
    pub all_tags: bool,
    /// Of an image for several platforms, copy only this one (may be given several times), for example linux/amd64.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Vec<Platform>,
    /// With --platform: keep the index as it is, although it names images that are not copied, or make a smaller one, which
    /// has another digest [default: sparse].
    #[arg(long, value_name = "MODE", requires = "platform", value_parser = platform_mode())]
    pub platform_mode: Option<PlatformMode>,
}

fn platform_mode() -> impl TypedValueParser<Value = PlatformMode> {
    PossibleValuesParser::new(["sparse", "rewrite"]).map(|mode| match mode.as_str() {
        "rewrite" => PlatformMode::Rewrite,
        _ => PlatformMode::Sparse,
    })
}

fn referrers() -> impl TypedValueParser<Value = Referrers> {
    PossibleValuesParser::new(["root", "all"]).map(|which| match which.as_str() {
        "all" => Referrers::All,
        _ => Referrers::Root,
    })
}

impl CopyArgs {
    /// Several tags of a repository are meant: these, or all (then there are none here). None: one image.
    #[must_use]
    pub fn several(&self) -> Option<Vec<String>> {
        if self.all_tags { Some(Vec::new()) } else { self.tags.clone() }
    }

    /// Where and when it waits, for a batch.
    #[must_use]
    pub fn how(&self) -> How {
        How {
            dry_run: self.dry_run,
            priority: self.priority,
            at: self.at,
            after: self.after,
            max_attempts: self.max_attempts,
            queue: self.queue.clone(),
        }
    }

    /// It was asked for at a time of its own.
    #[must_use]
    pub const fn has_time(&self) -> bool {
        self.at.is_some() || self.after.is_some()
    }

    /// What goes into the row's options.
    #[must_use]
    pub fn options(&self) -> CopyOptions {
        CopyOptions {
            force: self.force,
            no_clobber: self.no_clobber,
            src_tls_verify: self.src_tls_verify,
            dest_tls_verify: self.dest_tls_verify,
            verify: self.verify,
            referrers: if self.no_referrers { Some(Referrers::None) } else { self.referrers },
            artifact_types: self.artifact_type.clone(),
            platforms: self.platform.iter().map(ToString::to_string).collect(),
            platform_mode: self.platform_mode,
        }
    }

    /// The job that `SRC DST` with these options means.
    ///
    /// # Errors
    /// A reference or an option is wrong; the message says which.
    pub fn job(&self, context: &Context, source: &str, destination: &str) -> Result<NewJob> {
        let mut job = context.new_job(source, destination, self.options())?;
        self.apply(&mut job, context.clock.now());
        job.check()?;
        Ok(job)
    }

    /// Puts what was typed into a job that has its defaults.
    pub fn apply(&self, job: &mut NewJob, now: UnixMillis) {
        job.run_at = self.at.or_else(|| self.after.map(|after| now.plus(after)));
        job.priority = self.priority.unwrap_or(job.priority);
        job.max_attempts = self.max_attempts.unwrap_or(job.max_attempts);
        job.idempotency_key.clone_from(&self.idempotency_key);
        if let Some(queue) = &self.queue {
            job.queue.clone_from(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        copy: CopyArgs,
    }

    fn parse(line: &str) -> CopyArgs {
        Line::parse_from(std::iter::once("x").chain(line.split_whitespace())).copy
    }

    #[test]
    fn several_tags_are_a_batch() {
        assert_eq!(parse("--tags a,b").several(), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(parse("--all-tags").several(), Some(Vec::new()));
        assert_eq!(parse("").several(), None);
        assert_eq!(parse("").options(), CopyOptions::default());
    }

    #[test]
    fn referrers_are_chosen() {
        let canonical = |line| parse(line).options().canonical();
        assert_eq!(canonical("--referrers"), "{}");
        assert_eq!(canonical("--referrers=all"), r#"{"referrers":"all"}"#);
        assert_eq!(canonical("--no-referrers"), r#"{"referrers":"none"}"#);
        let types = "--artifact-type a/b --artifact-type=c/d";
        assert_eq!(canonical(types), r#"{"artifact_types":["a/b","c/d"]}"#);
        for wrong in ["--referrers=some", "--referrers=all --no-referrers", "--no-referrers --artifact-type a/b"] {
            assert!(Line::try_parse_from(std::iter::once("x").chain(wrong.split_whitespace())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tls_switches_are_those_of_skopeo() {
        assert_eq!(
            parse("--src-tls-verify=false --dest-tls-verify").options().canonical(),
            r#"{"src_tls_verify":false}"#
        );
        assert_eq!(parse("--dest-tls-verify=0").dest_tls_verify, Some(false));
    }
}
