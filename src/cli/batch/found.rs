//! `--dry-run` of a batch: what its rules select, and what copying that would move. Nothing is changed anywhere.

use crate::cli::Context;
use crate::cli::error::{Error, Result};
use crate::cli::output::{Rows, bytes};
use crate::job::Parsed;
use crate::mirror::copies::{Copies, Decided, Unlisted};
use crate::mirror::{Rule, Rules, listing};
use crate::registry::Session;
use crate::replicate::Preview;
use futures_util::{StreamExt, stream};
use serde::Serialize;

/// Images looked at side by side.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct Image<'a> {
    source: &'a str,
    destination: &'a str,
    #[serde(flatten)]
    preview: Option<&'a Preview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Default)]
struct Sum {
    images: u64,
    present: u64,
    failed: u64,
    blobs: u64,
    bytes: u64,
    requests: u64,
}

/// Prints what would be copied.
///
/// # Errors
/// Something cannot be listed or looked at; the rest is told first.
pub async fn preview(context: &mut Context, rules: &Rules) -> Result {
    let engine = context.engine()?;
    let mut rows = Rows::new(context.format());
    let mut sum = Sum::default();
    for rule in &rules.rules {
        let (copies, problems) = of_rule(context, rule).await?;
        for problem in problems {
            sum.failed += 1;
            context.notes.note(&format!("{}: {problem}", rule.name));
        }
        let looks = copies.into_iter().map(|(source, destination, parsed)| {
            let engine = &engine;
            async move {
                let preview = engine.preview(&parsed).await;
                (source, destination, preview)
            }
        });
        let mut looks = stream::iter(looks.collect::<Vec<_>>()).buffered(AT_ONCE);
        while let Some((source, destination, preview)) = looks.next().await {
            sum.add(&preview);
            if context.format().is_json() {
                let (preview, error) = match &preview {
                    Ok(preview) => (Some(preview), None),
                    Err(error) => (None, Some(error.message.clone())),
                };
                let image = Image { source: &source, destination: &destination, preview, error };
                rows.add(&mut context.output, &image)?;
                continue;
            }
            let line = match preview {
                Ok(preview) if preview.already_present => format!("{source} -> {destination}: already there"),
                Ok(preview) => format!("{source} -> {destination}: {}", bytes(preview.bytes)),
                Err(error) => format!("{source} -> {destination}: {}", error.message),
            };
            context.output.line(&line)?;
        }
    }
    rows.end(&mut context.output)?;
    context.output.flush()?;
    sum.tell(context);
    if sum.failed > 0 {
        return Err(Error::failed("failed", format!("{} could not be looked at", sum.failed)));
    }
    Ok(())
}

impl Sum {
    fn add(&mut self, preview: &std::result::Result<Preview, crate::replicate::Error>) {
        self.images += 1;
        match preview {
            Ok(preview) if preview.already_present => {
                self.present += 1;
                self.requests += 2;
            }
            Ok(preview) => {
                self.blobs += preview.blobs;
                self.bytes += preview.bytes;
                // The tag on both sides, each manifest read and written; each blob looked for, read, begun and sent.
                self.requests += 2 + 2 * preview.manifests + 4 * preview.blobs;
            }
            Err(_) => self.failed += 1,
        }
    }

    fn tell(&self, context: &Context) {
        let Self { images, present, blobs, requests, .. } = self;
        context.notes.note(&format!(
            "would copy {} of {images} images ({present} already there): {blobs} blobs, {}, about {requests} requests; \
             blobs that several images share are counted for each",
            images - present - self.failed.min(images - present),
            bytes(self.bytes)
        ));
    }
}

/// The copies of a rule, and what could not be listed.
async fn of_rule(context: &Context, rule: &Rule) -> Result<(Vec<(String, String, Parsed)>, Vec<String>)> {
    let session = context.session(rule.options.src_tls_verify)?;
    let kept: Vec<String> = match listing::repositories(&session, rule).await {
        Ok(decisions) => decisions.into_iter().filter(|decision| decision.kept).map(|decision| decision.name).collect(),
        Err(error) => return Ok((Vec::new(), vec![error.to_string()])),
    };
    let mut problems = rule.clashes(&kept);
    if !problems.is_empty() {
        return Ok((Vec::new(), problems));
    }
    let destination = context.session(rule.options.dest_tls_verify)?;
    let mut found = Vec::new();
    for name in kept {
        match decided(context, &session, &destination, rule, &name).await {
            Ok(decided) => {
                let jobs = decided.into_iter().flat_map(|decided| decided.jobs);
                found.extend(jobs.map(|job| (job.source, job.destination, job.parsed)));
            }
            Err((_, problem)) => problems.push(problem),
        }
    }
    Ok((found, problems))
}

/// Every tag of a repository with what was decided, and its copies.
///
/// # Errors
/// The repository cannot be listed.
pub async fn decided(
    context: &Context,
    source: &Session,
    destination: &Session,
    rule: &Rule,
    name: &str,
) -> std::result::Result<Vec<Decided>, Unlisted> {
    Copies::look(source, destination, rule, name, &context.clock).await?.all()
}
