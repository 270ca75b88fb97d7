//! Kinds of requests, which registries count and limit each for itself.

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// GET and HEAD of a manifest, and its referrers.
    ManifestRead,
    /// PUT and DELETE of a manifest.
    ManifestWrite,
    /// GET and HEAD of a blob.
    BlobRead,
    /// The steps of an upload that carry no content: its beginning, its status, its end, a mount.
    Upload,
    /// The content of an upload.
    UploadData,
    /// Lists of tags and repositories.
    List,
    /// Tokens of a registry's token server.
    Token,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::ManifestRead,
        Self::ManifestWrite,
        Self::BlobRead,
        Self::Upload,
        Self::UploadData,
        Self::List,
        Self::Token,
    ];

    /// The name in the configuration and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestRead => "manifest_read",
            Self::ManifestWrite => "manifest_write",
            Self::BlobRead => "blob_read",
            Self::Upload => "upload",
            Self::UploadData => "upload_data",
            Self::List => "list",
            Self::Token => "token",
        }
    }
}
