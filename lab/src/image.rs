//! Container images without a container engine: a docker-archive (config, layers, manifest) written from tars and plain files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::state::write_atomic;

/// An image to be written.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Name and tag.
    pub name: String,
    /// From the bottom up.
    pub layers: Vec<Layer>,
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User, empty for root.
    pub user: String,
}

/// One layer.
#[derive(Debug, Clone)]
pub enum Layer {
    /// A tar that exists.
    Tar(PathBuf),
    /// Files and directories of this machine, in a tar made in memory.
    Files(Vec<Added>),
}

/// A file or directory of this machine and its path in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// On this machine.
    pub source: PathBuf,
    /// In the image, absolute.
    pub target: String,
}

/// An image whose digests are known, ready to be streamed any number of times.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    config: Vec<u8>,
    id: String,
    layers: Vec<PreparedLayer>,
}

#[derive(Debug)]
struct PreparedLayer {
    digest: String,
    size: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Added {
    /// From `SRC:DEST`.
    pub fn parse(text: &str) -> Result<Self> {
        let (source, target) = text.rsplit_once(':').with_context(|| format!("`{text}` is not SRC:DEST"))?;
        ensure!(target.starts_with('/'), "the path in the image must be absolute: `{target}`");
        Ok(Self { source: source.into(), target: target.to_owned() })
    }
}

impl Image {
    /// Hashes the layers and fixes the configuration.
    pub fn prepare(&self) -> Result<Prepared> {
        let layers: Vec<_> = self.layers.iter().map(Layer::prepare).collect::<Result<_>>()?;
        let diff_ids: Vec<_> = layers.iter().map(|l| format!("sha256:{}", l.digest)).collect();
        let mut inner = json!({"Env": self.env});
        if !self.entrypoint.is_empty() {
            inner["Entrypoint"] = json!(self.entrypoint);
        }
        if !self.user.is_empty() {
            inner["User"] = json!(self.user);
        }
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))?;
        let id = hex(&Sha256::digest(&config));
        Ok(Prepared { name: self.name.clone(), config, id, layers })
    }
}

impl Prepared {
    /// Digest of the configuration, which names all layers: equal images have equal ids.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name and tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same content under another name and tag.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Streams the docker-archive.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(out);
        for layer in &self.layers {
            let name = format!("{}.tar", layer.digest);
            match &layer.content {
                Content::Bytes(bytes) => append(&mut archive, &name, layer.size, bytes.as_slice())?,
                Content::File(path) => append(&mut archive, &name, layer.size, File::open(path)?)?,
            }
        }
        append(&mut archive, &format!("{}.json", self.id), self.config.len() as u64, self.config.as_slice())?;
        let manifest = serde_json::to_vec(&self.manifest())?;
        append(&mut archive, "manifest.json", manifest.len() as u64, manifest.as_slice())?;
        archive.into_inner()?.flush().context("cannot finish the archive")
    }

    fn manifest(&self) -> Value {
        let layers: Vec<_> = self.layers.iter().map(|l| format!("{}.tar", l.digest)).collect();
        json!([{"Config": format!("{}.json", self.id), "RepoTags": [self.name], "Layers": layers}])
    }
}

impl Layer {
    fn prepare(&self) -> Result<PreparedLayer> {
        match self {
            Self::Tar(path) => {
                let size = fs::metadata(path).with_context(|| format!("no layer {}", path.display()))?.len();
                Ok(PreparedLayer { digest: file_digest(path)?, size, content: Content::File(path.clone()) })
            }
            Self::Files(files) => {
                let bytes = tar_of(files)?;
                let digest = hex(&Sha256::digest(&bytes));
                Ok(PreparedLayer { digest, size: bytes.len() as u64, content: Content::Bytes(bytes) })
            }
        }
    }
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = header(size, 0o644, tar::EntryType::Regular);
    archive.append_data(&mut header, name, content).with_context(|| format!("cannot write {name}"))
}

/// Same content, same bytes: no times, no owners.
fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(kind);
    header
}

fn tar_of(files: &[Added]) -> Result<Vec<u8>> {
    let mut entries = std::collections::BTreeMap::new();
    for file in files {
        collect(&file.source, Path::new(file.target.trim_start_matches('/')), &mut entries)?;
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (target, source) in entries {
        match source {
            None => {
                let mut header = header(0, 0o755, tar::EntryType::Directory);
                archive.append_data(&mut header, format!("{}/", target.display()), io::empty())?;
            }
            Some(source) => {
                let file = File::open(&source).with_context(|| format!("cannot read {}", source.display()))?;
                let meta = file.metadata()?;
                let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                archive.append_data(&mut header(meta.len(), mode, tar::EntryType::Regular), target, file)?;
            }
        }
    }
    Ok(archive.into_inner()?)
}

/// Sorted by path, so that a directory comes before what is in it.
fn collect(
    source: &Path,
    target: &Path,
    into: &mut std::collections::BTreeMap<PathBuf, Option<PathBuf>>,
) -> Result<()> {
    for parent in target.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        into.entry(parent.to_owned()).or_insert(None);
    }
    if !source.is_dir() {
        into.insert(target.to_owned(), Some(source.to_owned()));
        return Ok(());
    }
    into.entry(target.to_owned()).or_insert(None);
    for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
        let entry = entry?;
        collect(&entry.path(), &target.join(entry.file_name()), into)?;
    }
    Ok(())
}

fn digest_file(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// Writes a large layer's digest beside it, so that it is hashed once.
pub fn remember_digest(path: &Path) -> Result<()> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash).with_context(|| format!("cannot read {}", path.display()))?;
    write_atomic(&digest_file(path), hex(&hash.finalize()).as_bytes())
}

fn file_digest(path: &Path) -> Result<String> {
    if let Ok(known) = fs::read_to_string(digest_file(path)) {
        return Ok(known.trim().to_owned());
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path) -> Image {
        fs::create_dir_all(dir.join("etc/deep")).unwrap();
        fs::write(dir.join("etc/deep/file"), "deep").unwrap();
        fs::write(dir.join("program"), "#!").unwrap();
        fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(0o700)).unwrap();
        Image {
            name: "thing:1".into(),
            layers: vec![Layer::Files(vec![
                Added { source: dir.join("program"), target: "/usr/bin/program".into() },
                Added { source: dir.join("etc"), target: "/etc/thing".into() },
            ])],
            entrypoint: vec!["/usr/bin/program".into()],
            ..Image::default()
        }
    }

    fn names(bytes: &[u8]) -> Vec<(String, u32)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|e| (e.path().unwrap().display().to_string(), e.header().mode().unwrap())).collect()
    }

    #[test]
    fn an_archive_holds_layers_config_and_a_manifest_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let prepared = image(dir.path()).prepare().unwrap();
        let mut bytes = Vec::new();
        prepared.write(&mut bytes).unwrap();
        let entries: Vec<_> = names(&bytes).into_iter().map(|(n, _)| n).collect();
        let manifest = prepared.manifest();
        assert_eq!(entries[0], manifest[0]["Layers"][0].as_str().unwrap());
        assert_eq!(entries[1], manifest[0]["Config"].as_str().unwrap());
        assert_eq!(entries[2], "manifest.json");
        assert_eq!(manifest[0]["RepoTags"][0], "thing:1");
        let config: Value = serde_json::from_slice(&prepared.config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", prepared.layers[0].digest));
    }

    #[test]
    fn a_layer_has_its_directories_first_and_keeps_who_may_execute() {
        let dir = tempfile::tempdir().unwrap();
        let Layer::Files(files) = &image(dir.path()).layers[0] else { unreachable!("made above") };
        let entries = names(&tar_of(files).unwrap());
        let want = [
            ("etc/", 0o755),
            ("etc/thing/", 0o755),
            ("etc/thing/deep/", 0o755),
            ("etc/thing/deep/file", 0o644),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/program", 0o755),
        ];
        assert_eq!(entries, want.map(|(n, m)| (n.to_owned(), m)));
    }

    #[test]
    fn the_id_depends_on_content_and_not_on_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = image(dir.path()).prepare().unwrap().id;
        assert_eq!(first, image(dir.path()).prepare().unwrap().id, "files were written again, later");
        fs::write(dir.path().join("etc/deep/file"), "other").unwrap();
        assert_ne!(first, image_id_of(dir.path()));
    }

    fn image_id_of(dir: &Path) -> String {
        let files = vec![Added { source: dir.join("etc"), target: "/etc/thing".into() }];
        Image { layers: vec![Layer::Files(files)], ..Image::default() }.prepare().unwrap().id
    }

    #[test]
    fn what_is_added_must_have_an_absolute_target() {
        assert_eq!(Added::parse("a:b:/c").unwrap(), Added { source: "a:b".into(), target: "/c".into() });
        assert!(Added::parse("a:b").is_err());
        assert!(Added::parse("a").is_err());
    }
}
