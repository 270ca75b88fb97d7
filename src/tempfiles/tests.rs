use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// Remembers what is registered, checks that no file is there before its path is, and can be told to fail.
#[derive(Default)]
struct Recorder {
    known: Mutex<Vec<PathBuf>>,
    refuse_register: Mutex<bool>,
    refuse_forget: Mutex<bool>,
}

impl Recorder {
    fn known(&self) -> Vec<PathBuf> {
        self.known.lock().unwrap().clone()
    }
}

impl Register for Recorder {
    fn register<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            assert!(!path.exists(), "the file was there before it was registered");
            if *self.refuse_register.lock().unwrap() {
                return Err("the database is away".to_owned());
            }
            self.known.lock().unwrap().push(path.to_owned());
            Ok(())
        })
    }

    fn forget<'a>(&'a self, paths: Vec<PathBuf>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if *self.refuse_forget.lock().unwrap() {
                return Err("the database is away".to_owned());
            }
            assert!(paths.iter().all(|path| !path.exists()), "forgotten before it was removed");
            self.known.lock().unwrap().retain(|path| !paths.contains(path));
            Ok(())
        })
    }
}

struct Rig {
    root: tempfile::TempDir,
    worker: uuid::Uuid,
    recorder: Arc<Recorder>,
    temp: TempFiles,
}

fn rig() -> Rig {
    let (root, worker, recorder) = (tempfile::tempdir().unwrap(), uuid::Uuid::now_v7(), Arc::new(Recorder::default()));
    let home = root.path().join("state/tmp").join(worker.to_string());
    let temp = TempFiles::new(home, worker, recorder.clone());
    Rig { root, worker, recorder, temp }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_file_is_registered_private_and_gone_when_dropped() {
    let rig = rig();
    let file = rig.temp.create().await.unwrap();
    let path = file.path().to_owned();
    assert_eq!(rig.recorder.known(), std::slice::from_ref(&path));
    assert_eq!(path.parent().unwrap(), rig.root.path().join("state/tmp").join(rig.worker.to_string()));
    assert!(path.file_name().unwrap().to_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&rig.root.path().join("state/tmp")), 0o700);
    drop(file);
    assert!(!path.exists());
    rig.temp.close().await.unwrap();
    assert!(rig.recorder.known().is_empty());
    assert!(!path.parent().unwrap().exists());
    rig.temp.close().await.unwrap();
}

#[tokio::test]
async fn a_persisted_file_stays_and_is_forgotten() {
    let rig = rig();
    let target = rig.root.path().join("target");
    std::fs::write(&target, "old").unwrap();
    let mut file = rig.temp.create().await.unwrap();
    file.file().write_all(b"content").await.unwrap();
    let path = file.path().to_owned();
    file.persist(&target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"content");
    assert!(!path.exists());
    rig.temp.close().await.unwrap();
    assert!(target.exists() && rig.recorder.known().is_empty());
}

#[tokio::test]
async fn a_failed_persist_leaves_nothing() {
    let rig = rig();
    let file = rig.temp.create().await.unwrap();
    let path = file.path().to_owned();
    let target = rig.root.path().join("no/such/folder");
    let error = file.persist(&target).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("no/such/folder") && !path.exists());
}

#[tokio::test]
async fn files_inside_a_root_lie_in_the_workers_folder() {
    let rig = rig();
    let layout = rig.root.path().join("layout");
    assert_eq!(rig.temp.create_inside(&layout).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    std::fs::create_dir(&layout).unwrap();
    let file = rig.temp.create_inside(&layout).await.unwrap();
    let path = file.path().to_owned();
    assert_eq!(path.parent().unwrap(), layout.join(".freightliner-tmp").join(rig.worker.to_string()));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&layout.join(".freightliner-tmp")), 0o700);

    // Another worker's folder keeps the common one.
    let other = layout.join(".freightliner-tmp/other");
    std::fs::create_dir(&other).unwrap();
    rig.temp.close().await.unwrap();
    assert!(!path.exists() && !path.parent().unwrap().exists() && other.exists());
    drop(file);

    std::fs::remove_dir(&other).unwrap();
    let again = rig.temp.create_inside(&layout).await.unwrap();
    rig.temp.close().await.unwrap();
    assert!(!layout.join(".freightliner-tmp").exists() && layout.exists());
    assert!(again.persist(&layout.join("x")).await.is_err());
    assert!(rig.recorder.known().is_empty());
}

#[tokio::test]
async fn links_are_not_followed() {
    let rig = rig();
    let (layout, elsewhere) = (rig.root.path().join("layout"), rig.root.path().join("elsewhere"));
    std::fs::create_dir(&layout).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, layout.join(".freightliner-tmp")).unwrap();
    let error = rig.temp.create_inside(&layout).await.unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);

    // A link that takes the folder's place later protects what it points to, and the path stays known.
    std::fs::remove_file(layout.join(".freightliner-tmp")).unwrap();
    rig.temp.close().await.unwrap();
    let file = rig.temp.create_inside(&layout).await.unwrap();
    let innocent = elsewhere.join(rig.worker.to_string()).join(file.path().file_name().unwrap());
    std::fs::create_dir_all(innocent.parent().unwrap()).unwrap();
    std::fs::write(&innocent, "mine").unwrap();
    std::fs::rename(layout.join(".freightliner-tmp"), rig.root.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, layout.join(".freightliner-tmp")).unwrap();
    assert!(rig.temp.close().await.is_err());
    assert!(innocent.exists());
    assert_eq!(rig.recorder.known(), [file.path().to_owned()]);
}

#[tokio::test]
async fn no_register_no_file() {
    let rig = rig();
    *rig.recorder.refuse_register.lock().unwrap() = true;
    let error = rig.temp.create().await.unwrap_err();
    assert!(error.to_string().contains("the database is away"), "{error}");
    assert!(!rig.root.path().join("state").exists());
    rig.temp.close().await.unwrap();
}

#[tokio::test]
async fn what_the_register_would_not_forget_is_told_again() {
    let rig = rig();
    drop(rig.temp.create().await.unwrap());
    *rig.recorder.refuse_forget.lock().unwrap() = true;
    assert!(rig.temp.close().await.is_err());
    assert_eq!(rig.recorder.known().len(), 1);
    *rig.recorder.refuse_forget.lock().unwrap() = false;
    rig.temp.close().await.unwrap();
    assert!(rig.recorder.known().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_share_a_folder_and_come_and_go() {
    let rig = rig();
    let home = rig.root.path().join("state/tmp").join(rig.worker.to_string());
    let attempts = (0..4).map(|_| {
        let (home, worker, recorder) = (home.clone(), rig.worker, rig.recorder.clone());
        async move {
            for _ in 0..25 {
                let temp = TempFiles::new(home.clone(), worker, recorder.clone());
                let clone = temp.clone();
                let (one, two) = tokio::join!(temp.create(), clone.create());
                let (one, two) = (one.unwrap(), two.unwrap());
                assert!(one.path().exists() && two.path().exists());
                drop(one);
                temp.close().await.unwrap();
                assert!(!two.path().exists());
            }
        }
    });
    let mut running = tokio::task::JoinSet::new();
    attempts.for_each(|attempt| drop(running.spawn(attempt)));
    running.join_all().await;
    assert!(!home.exists() && rig.recorder.known().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_nobody_waits_for_leaves_nothing() {
    let rig = rig();
    for _ in 0..50 {
        let mut creation = Box::pin(rig.temp.create());
        // Polled once or twice, then dropped wherever it stands.
        let polled = futures_util::future::poll_immediate(&mut creation).await;
        drop(polled);
        tokio::task::yield_now().await;
        drop(creation);
        rig.temp.close().await.unwrap();
    }
    rig.temp.close().await.unwrap();
    assert!(rig.recorder.known().is_empty());
    assert!(!rig.root.path().join("state/tmp").join(rig.worker.to_string()).exists());
}
