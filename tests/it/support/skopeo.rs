//! skopeo, the judge of what others can do with our results.

use super::binary::Output;
use std::path::{Path, PathBuf};
use std::process::Command;

/// skopeo as installed, with credentials and caches in a temp folder of its own.
pub struct Skopeo {
    program: PathBuf,
    folder: tempfile::TempDir,
    /// A CA folder (`--src-cert-dir`); without, TLS is not verified and plain HTTP is allowed.
    authority: Option<PathBuf>,
}

impl Skopeo {
    /// None (said loudly) when it is not installed.
    pub fn find() -> Option<Self> {
        let program = super::need("skopeo")?;
        Some(Self { program, folder: tempfile::tempdir().expect("a temp folder"), authority: None })
    }

    /// Verifies TLS, by this authority.
    pub fn trusting(mut self, ca: &Path) -> Self {
        let folder = self.folder.path().join("certs");
        std::fs::create_dir_all(&folder).expect("make a folder");
        std::fs::copy(ca, folder.join("ca.crt")).expect("copy the CA");
        self.authority = Some(folder);
        self
    }

    /// Any command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(&self.program)
            .args(["--insecure-policy", "--command-timeout", "120s"])
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env_remove("DOCKER_CONFIG")
            .env_remove("REGISTRY_AUTH_FILE")
            .output()
            .expect("run skopeo");
        Output::from(output)
    }

    /// `skopeo copy --all --preserve-digests`; references carry their transport (`docker://`, `oci:`, `dir:`).
    pub fn copy(&self, source: &str, destination: &str, more: &[&str]) -> Output {
        let tls = match &self.authority {
            None => vec!["--src-tls-verify=false".to_owned(), "--dest-tls-verify=false".to_owned()],
            Some(folder) => {
                let folder = folder.display();
                vec![format!("--src-cert-dir={folder}"), format!("--dest-cert-dir={folder}")]
            }
        };
        let mut arguments = vec!["copy", "--all", "--preserve-digests"];
        arguments.extend(tls.iter().map(String::as_str));
        arguments.extend(more);
        arguments.extend([source, destination]);
        self.run(&arguments)
    }

    /// `skopeo inspect`, which reads the config of linux/amd64 too.
    pub fn inspect(&self, reference: &str, more: &[&str]) -> Output {
        let tls = match &self.authority {
            None => "--tls-verify=false".to_owned(),
            Some(folder) => format!("--cert-dir={}", folder.display()),
        };
        let mut arguments = vec!["--override-os=linux", "--override-arch=amd64", "inspect", tls.as_str()];
        arguments.extend(more);
        arguments.push(reference);
        self.run(&arguments)
    }

    /// The raw bytes of a manifest.
    pub fn raw(&self, reference: &str) -> Vec<u8> {
        self.inspect(reference, &["--raw"]).success().stdout
    }
}
