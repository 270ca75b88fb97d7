//! The tools that copy: ours, and those that are there already.

use crate::corpus::Corpus;
use crate::lab::Ends;
use crate::process::{Cost, Process, run};
use crate::{Failure, Measured};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Jobs at a time of `work`.
const CONCURRENCY: &str = "16";

/// Our program, with a state folder of its own.
pub struct Ours<'a> {
    /// Database, locks, temporary files.
    pub state: &'a Path,
}

impl Ours<'_> {
    /// The program with a command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_freightliner"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.state)
            .args(["--log-level", "warn", "--no-progress", "--state-dir"])
            .arg(self.state)
            .arg("--database")
            .arg(format!("sqlite:{}/jobs.db", self.state.display()))
            .args(arguments);
        command
    }

    /// `replicate` of one image.
    ///
    /// # Errors
    /// It failed.
    pub async fn replicate(&self, ends: &Ends, image: &str) -> Measured<Cost> {
        let (from, to) = (format!("{}/{image}", ends.source.address()), format!("{}/{image}", ends.to()));
        run(&mut self.command(&["replicate", "--no-referrers", &from, &to])).await
    }

    /// `enqueue --from-file` of all tags, then `work --drain`.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn drain(&self, ends: &Ends, corpus: &Corpus, round: &str) -> Measured<Cost> {
        let (source, destination) = (ends.source.address(), ends.to());
        let list = self.state.join(format!("list-{round}"));
        let lines = corpus.tags.keys().map(|(repository, tag)| {
            let image = format!("{repository}:{tag}");
            format!("{source}/{image} {destination}/{image}\n")
        });
        std::fs::write(&list, lines.collect::<String>())?;
        // Each round is another request: the same file again would find the jobs of before.
        let file = list.display().to_string();
        let enqueued = run(&mut self.command(&["enqueue", "--no-referrers", "--from-file", &file])).await?;
        let worked = run(&mut self.command(&["work", "--drain", "--concurrency", CONCURRENCY])).await?;
        Ok(enqueued.then(worked))
    }
}

fn skopeo(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(arguments);
    command.args(["--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home);
    command.env_remove("DOCKER_CONFIG").env_remove("REGISTRY_AUTH_FILE");
    command
}

/// `skopeo copy` of one image.
///
/// # Errors
/// It failed.
pub async fn skopeo_copy(home: &Path, ends: &Ends, image: &str) -> Measured<Cost> {
    let from = format!("docker://{}/{image}", ends.source.address());
    let to = format!("docker://{}/{image}", ends.to());
    run(skopeo(home, &["copy"]).arg(from).arg(to)).await
}

/// `skopeo sync` of all repositories, one after the other.
///
/// # Errors
/// One of them failed.
pub async fn skopeo_sync(home: &Path, ends: &Ends, corpus: &Corpus) -> Measured<Cost> {
    let mut cost = Cost::default();
    for repository in corpus.repositories() {
        let from = format!("{}/{repository}", ends.source.address());
        // Sync puts the last part of the name behind what it is given.
        let parent = repository.rsplit_once('/').map_or("", |(parent, _)| parent);
        let to = format!("{}/{parent}", ends.to());
        let mut command = skopeo(home, &["sync", "--src", "docker", "--dest", "docker"]);
        cost = cost.then(run(command.arg(from).arg(to)).await?);
    }
    Ok(cost)
}

/// One blob from registry to registry by two `curl`s and a pipe, nothing verified on this side.
///
/// # Errors
/// One of them failed.
pub async fn curl_pipe(ends: &Ends, repository: &str, digest: &str) -> Measured<Cost> {
    let (source, destination) = (ends.source.address(), ends.to());
    let headers = tempfile::NamedTempFile::new()?;
    let open = run(Command::new("curl")
        .args(["-fsS", "-X", "POST", "-D"])
        .arg(headers.path())
        .arg(format!("http://{destination}/v2/{repository}/blobs/uploads/")))
    .await?;
    let text = std::fs::read_to_string(headers.path())?;
    let location = text.lines().find_map(|line| line.strip_prefix("Location: ")).ok_or("the POST gave no Location")?;
    let mut get = Command::new("curl");
    get.args(["-fsS"]).arg(format!("http://{source}/v2/{repository}/blobs/{digest}")).stdout(Stdio::piped());
    let mut get = Process::spawn(get.stdin(Stdio::null()))?;
    let pipe = get.child().stdout.take().ok_or("curl has no standard output")?;
    let mut put = Command::new("curl");
    put.args(["-fsS", "-T", "-", "-H", "Content-Type: application/octet-stream", "-H", "Expect:"]);
    put.arg(format!("{}&digest={digest}", location.trim())).stdin(pipe).stdout(Stdio::null());
    let put = Process::spawn(&mut put)?;
    let (got, sent) = tokio::try_join!(get.end("curl GET"), put.end("curl PUT"))?;
    Ok(open.then(got.beside(sent)))
}

/// A plain copy of the storage.
///
/// # Errors
/// It failed.
pub async fn file_copy(from: &Path, to: &Path) -> Measured<Cost> {
    std::fs::create_dir_all(to)?;
    run(Command::new("cp").arg("-a").arg(from).arg(to)).await
}

/// The uploads that a server's storage holds, and how much of each is on its disk.
pub fn uploads(storage: &Path, repository: &str) -> BTreeMap<OsString, u64> {
    let folder = storage.join("repositories").join(repository).join("_uploads");
    let uploads = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let sizes = uploads.filter_map(|upload| {
        let data = std::fs::metadata(upload.path().join("data")).ok()?;
        Some((upload.file_name(), data.len()))
    });
    sizes.collect()
}

/// The programs that this needs.
///
/// # Errors
/// Names those that are missing.
pub fn needed() -> Measured {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|folder: PathBuf| folder.join(name).exists());
    let missing: Vec<_> = ["docker-registry", "skopeo", "curl"].into_iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::from(format!("not installed: {}", missing.join(", ")))) }
}
