use super::*;
use crate::job::retry::Class;
use crate::oci::{Algorithm, Content, Verifier};
use crate::tempfiles::Unregistered;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

const MANIFEST: &str = crate::oci::manifest::OCI_MANIFEST;

struct Rig {
    folder: tempfile::TempDir,
    temp: TempFiles,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let temp = TempFiles::new(folder.path().join("home"), uuid::Uuid::now_v7(), Arc::new(Unregistered));
        Self { folder, temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn layout(&self, name: &str) -> Layout {
        Layout::open_or_create(&self.path(name)).await.unwrap()
    }

    async fn blob(&self, layout: &Layout, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let mut writer = layout.write_blob(&digest, &self.temp).await.unwrap();
        for piece in content.chunks(1000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.commit().await.unwrap();
        digest
    }

    /// A small real image, published under `name`.
    async fn image(&self, layout: &Layout, content: &str, name: Option<&str>) -> Entry {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","author":"{content}","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(Algorithm::Sha256, content.as_bytes())
        );
        let layer = self.blob(layout, content.as_bytes()).await;
        let config_digest = self.blob(layout, config.as_bytes()).await;
        let manifest = format!(
            r#"{{ "schemaVersion": 2, "mediaType": "{MANIFEST}", "config": {{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}}, "layers": [{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{}}}] }}"#,
            config.len(),
            content.len()
        );
        let digest = self.blob(layout, manifest.as_bytes()).await;
        let (size, name) = (u64::try_from(manifest.len()).unwrap(), name.map(str::to_owned));
        let entry = Entry { digest, size, media_type: MANIFEST.to_owned(), name };
        layout.publish(&entry, &self.temp).await.unwrap();
        entry
    }
}

fn reference(text: &str) -> LayoutReference {
    text.parse().unwrap()
}

async fn read(layout: &Layout, digest: &Digest) -> Vec<u8> {
    let mut blob = layout.blob(digest).await.unwrap();
    let mut verifier = Verifier::new(digest.clone(), Some(blob.length()));
    let mut content = Vec::new();
    while let Some(piece) = blob.chunk().await.unwrap() {
        verifier.update(&piece).unwrap();
        content.extend_from_slice(&piece);
    }
    verifier.finish().unwrap();
    content
}

#[tokio::test]
async fn a_new_layout_is_complete_and_opening_it_again_changes_nothing() {
    let rig = Rig::new();
    let path = rig.path("deep/er/layout");
    assert_eq!(Layout::open(&path).await.unwrap_err().class(), Class::Absent);
    let layout = Layout::open_or_create(&path).await.unwrap();
    assert_eq!(std::fs::read(path.join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    assert!(path.join("blobs").is_dir());
    assert_eq!(layout.entries().await.unwrap(), []);
    assert_eq!(layout.resolve(&reference("oci:x")).await.unwrap(), None);
    let index = std::fs::read(path.join("index.json")).unwrap();
    Layout::open_or_create(&path).await.unwrap();
    Layout::open(&path).await.unwrap();
    assert_eq!(std::fs::read(path.join("index.json")).unwrap(), index);

    // What a writer that died left unfinished is finished.
    std::fs::write(path.join("oci-layout"), "").unwrap();
    std::fs::write(path.join("index.json"), "").unwrap();
    assert_eq!(Layout::open(&path).await.unwrap_err().class(), Class::Refused);
    assert_eq!(Layout::open_or_create(&path).await.unwrap().entries().await.unwrap(), []);
    std::fs::remove_file(path.join("index.json")).unwrap();
    assert_eq!(Layout::open(&path).await.unwrap_err().class(), Class::Refused, "not a layout yet");
    assert_eq!(Layout::open_or_create(&path).await.unwrap().entries().await.unwrap(), []);
}

#[tokio::test]
async fn blobs_go_in_whole_and_come_out_whole() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let large: Vec<u8> = (0..1_000_003_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    for content in [large.as_slice(), b"", b"x"] {
        let digest = Digest::of(Algorithm::Sha512, content);
        assert_eq!(layout.has_blob(&digest).await.unwrap(), None);
        assert_eq!(layout.blob(&digest).await.unwrap_err().class(), Class::Absent);
        let mut writer = layout.write_blob(&digest, &rig.temp).await.unwrap();
        for piece in content.chunks(300_000).flat_map(|piece| piece.chunks(270_000)) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            assert_eq!(layout.has_blob(&digest).await.unwrap(), None);
        }
        writer.commit().await.unwrap();
        assert_eq!(layout.has_blob(&digest).await.unwrap(), Some(u64::try_from(content.len()).unwrap()));
        assert_eq!(read(&layout, &digest).await, content);
        let path = layout.dir().join("blobs/sha512").join(digest.hex());
        let expected = 0o600 | (layout.dir().metadata().unwrap().permissions().mode() & 0o044);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, expected);
    }
    let dropped = Digest::of(Algorithm::Sha256, b"dropped");
    let mut writer = layout.write_blob(&dropped, &rig.temp).await.unwrap();
    writer.write(Bytes::from_static(b"drop")).await.unwrap();
    drop(writer);
    rig.temp.close().await.unwrap();
    assert_eq!(layout.has_blob(&dropped).await.unwrap(), None);
    assert!(!layout.dir().join(".freightliner-tmp").exists());
}

#[tokio::test]
async fn entries_are_found_by_name_by_digest_and_alone() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let one = rig.image(&layout, "one", Some("v1")).await;
    assert_eq!(layout.resolve(&reference("oci:x")).await.unwrap(), Some(one.clone()));
    let two = rig.image(&layout, "two", Some("quay.io/org/app:2")).await;
    assert_eq!(layout.resolve(&reference("oci:x:v1")).await.unwrap(), Some(one.clone()));
    assert_eq!(layout.resolve(&reference("oci:x:quay.io/org/app:2")).await.unwrap(), Some(two.clone()));
    assert_eq!(layout.resolve(&reference("oci:x:v3")).await.unwrap(), None);
    let by_digest = reference(&format!("oci:x:v1@{}", two.digest));
    assert_eq!(layout.resolve(&by_digest).await.unwrap(), Some(two.clone()));
    let error = layout.resolve(&reference("oci:x")).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("'v1', 'quay.io/org/app:2'"), "{error}");
    assert!(layout.is_published(&one).await.unwrap());
    assert!(!layout.is_published(&Entry { name: Some("v2".to_owned()), ..one }).await.unwrap());
}

#[tokio::test]
async fn a_manifest_that_is_not_listed_is_found_by_its_digest() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let image = rig.image(&layout, "child", Some("v1")).await;
    rig.image(&layout, "other", Some("v1")).await;
    let by_digest = reference(&format!("oci:x@{}", image.digest));
    let found = layout.resolve(&by_digest).await.unwrap();
    assert_eq!(found, Some(Entry { name: None, ..image.clone() }));

    let blob = rig.blob(&layout, b"no manifest").await;
    let error = layout.resolve(&reference(&format!("oci:x@{blob}"))).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    std::fs::write(layout.dir().join("blobs/sha256").join(image.digest.hex()), "{}").unwrap();
    assert_eq!(layout.resolve(&by_digest).await.unwrap_err().class(), Class::Corrupt);
    let missing = Digest::of(Algorithm::Sha256, b"missing");
    assert_eq!(layout.resolve(&reference(&format!("oci:x@{missing}"))).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_is_published_before_it_is_there() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let digest = Digest::of(Algorithm::Sha256, b"{}");
    let mut entry = Entry { digest, size: 2, media_type: MANIFEST.to_owned(), name: Some("x".to_owned()) };
    let error = layout.publish(&entry, &rig.temp).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    rig.blob(&layout, b"{}").await;
    entry.size = 3;
    assert!(layout.publish(&entry, &rig.temp).await.is_err());
    assert_eq!(layout.entries().await.unwrap(), []);
    entry.size = 2;
    layout.publish(&entry, &rig.temp).await.unwrap();
    assert_eq!(layout.entries().await.unwrap(), [entry]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_lose_each_others_entries() {
    let rig = Rig::new();
    let path = rig.path("layout");
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (path, temp) = (path.clone(), rig.temp.clone());
        writers.spawn(async move {
            // Each opens the layout itself, so that they race for making it and lock different open files.
            let layout = Layout::open_or_create(&path).await.unwrap();
            let content = format!("{{\"n\":{number}}}");
            let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
            let mut writer = layout.write_blob(&digest, &temp).await.unwrap();
            let size = u64::try_from(content.len()).unwrap();
            writer.write(Bytes::from(content)).await.unwrap();
            writer.commit().await.unwrap();
            let name = Some(format!("n{number}"));
            layout.publish(&Entry { digest, size, media_type: MANIFEST.to_owned(), name }, &temp).await.unwrap();
        });
    }
    writers.join_all().await;
    assert_eq!(Layout::open(&path).await.unwrap().entries().await.unwrap().len(), 16);
    rig.temp.close().await.unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|item| item.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["blobs", "index.json", "oci-layout"]);
}

#[tokio::test]
async fn damaged_layouts_say_what_is_damaged() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let path = layout.dir().to_owned();
    let refused = async |file: &str, content: &[u8], part: &str| {
        let before = std::fs::read(path.join(file)).unwrap();
        std::fs::write(path.join(file), content).unwrap();
        let error = match Layout::open(&path).await {
            Ok(layout) => layout.entries().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.class(), Class::Refused);
        assert!(error.to_string().contains(part), "{error}");
        assert!(Layout::open_or_create(&path).await.is_err());
        std::fs::write(path.join(file), before).unwrap();
    };
    refused("oci-layout", b"{}", "damaged").await;
    refused("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#, "version '2.0.0'").await;
    refused("index.json", b"{\"manifests\":[", "damaged").await;
    refused("index.json", &vec![b' '; 8 * 1024 * 1024 + 1], "more than 8388608 bytes").await;
    std::fs::remove_file(path.join("index.json")).unwrap();
    assert!(layout.entries().await.unwrap_err().to_string().contains("has no index.json"));
    std::fs::remove_file(path.join("oci-layout")).unwrap();
    let error = Layout::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("not an OCI image layout"), "{error}");
    std::fs::write(rig.path("file"), "").unwrap();
    assert_eq!(Layout::open(&rig.path("file")).await.unwrap_err().class(), Class::Refused);
    assert_eq!(Layout::open_or_create(&rig.path("file")).await.unwrap_err().class(), Class::Refused);
    assert_eq!(Layout::open_or_create(&rig.path("file/x")).await.unwrap_err().class(), Class::Refused);
}

#[tokio::test]
async fn links_are_not_written_through_and_pipes_not_waited_for() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let elsewhere = rig.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::remove_dir(layout.dir().join("blobs")).unwrap();
    symlink(&elsewhere, layout.dir().join("blobs")).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let writer = layout.write_blob(&digest, &rig.temp).await.unwrap();
    let error = writer.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);

    std::fs::remove_file(layout.dir().join("blobs")).unwrap();
    std::fs::create_dir_all(layout.dir().join("blobs/sha256")).unwrap();
    let pipe = layout.dir().join("blobs/sha256").join(digest.hex());
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(layout.blob(&digest).await.unwrap_err().class(), Class::Refused);
    assert_eq!(layout.manifest(&digest, 10).await.unwrap_err().class(), Class::Refused);

    let new = rig.path("new");
    std::fs::create_dir(&new).unwrap();
    symlink(elsewhere.join("made"), new.join("index.json")).unwrap();
    assert_eq!(Layout::open_or_create(&new).await.unwrap_err().class(), Class::Refused);
    assert!(!elsewhere.join("made").exists());
}

#[tokio::test]
async fn manifests_are_read_up_to_the_limit() {
    let rig = Rig::new();
    let layout = rig.layout("layout").await;
    let digest = rig.blob(&layout, b"0123456789").await;
    assert_eq!(layout.manifest(&digest, 10).await.unwrap(), "0123456789");
    let error = layout.manifest(&digest, 9).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("more than 9 bytes"), "{error}");
}

/// Runs skopeo without a policy file; None, loudly, when it is not installed.
fn skopeo(arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new("skopeo").arg("--insecure-policy").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(output.stdout)
        }
        Err(cause) => {
            eprintln!("SKIPPED: skopeo cannot be run ({cause}); what it reads and writes was not tested");
            None
        }
    }
}

#[tokio::test]
async fn skopeo_reads_ours_and_we_read_skopeos() {
    let rig = Rig::new();
    let layout = rig.layout("ours").await;
    let image = rig.image(&layout, "content", Some("v1")).await;
    rig.image(&layout, "another", Some("v2")).await;
    let ours = format!("oci:{}:v1", layout.dir().display());
    let Some(raw) = skopeo(&["inspect", "--raw", &ours]) else { return };
    assert_eq!(Digest::of(Algorithm::Sha256, &raw), image.digest);

    let path = rig.path("theirs");
    let theirs = format!("oci:{}:tag", path.display());
    skopeo(&["copy", "--preserve-digests", &ours, &theirs]).unwrap();
    let other = Layout::open(&path).await.unwrap();
    let entry = other.resolve(&reference("oci:x:tag")).await.unwrap().unwrap();
    assert_eq!((&entry.digest, entry.size, entry.media_type.as_str()), (&image.digest, image.size, MANIFEST));
    assert_eq!(other.resolve(&reference("oci:x")).await.unwrap(), Some(entry.clone()));
    let bytes = other.manifest(&entry.digest, 10_000).await.unwrap();
    let Content::Image { blobs, .. } = Manifest::parse(bytes, None, Some(&entry.digest)).unwrap().content else {
        panic!()
    };
    for blob in blobs {
        assert_eq!(other.has_blob(&blob.digest).await.unwrap(), Some(blob.size));
        read(&other, &blob.digest).await;
    }

    // Each adds to what the other made.
    let other = Layout::open_or_create(&path).await.unwrap();
    rig.image(&other, "more", Some("more")).await;
    skopeo(&["copy", "--preserve-digests", &format!("oci:{}:v2", layout.dir().display()), &theirs]).unwrap();
    skopeo(&["inspect", &format!("oci:{}:more", path.display())]).unwrap();
    assert_ne!(other.resolve(&reference("oci:x:tag")).await.unwrap().unwrap().digest, entry.digest);
}
