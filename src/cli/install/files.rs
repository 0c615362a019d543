//! Writing files so that each is there whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use ringspun::janet::vm_version;

use crate::cli::choice::VARIABLE;

/// The executable of this process, even if its file has been replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What stands for the VM's release in texts.
const VERSION_PLACE: &str = "@VERSION@";

/// What goes into a file.
pub enum Content {
    Bytes(&'static [u8]),
    /// With the VM's release.
    Text(&'static str),
    /// A copy of this executable, which acts as Janet by its name.
    ThisProgram,
}

impl Content {
    fn mode(&self) -> u32 {
        if matches!(self, Self::ThisProgram) { 0o755 } else { 0o644 }
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => file.write_all(bytes),
            Self::Text(text) => {
                let version = vm_version();
                let release = version.rsplit_once('-').map_or(version, |(release, _build)| release);
                file.write_all(text.replace(VERSION_PLACE, release).as_bytes())
            }
            Self::ThisProgram => io::copy(&mut File::open(THIS_PROGRAM)?, file).map(drop),
        }
    }
}

/// A file that has been written beside its place. Dropping it removes it.
pub struct Staged {
    path: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// Writes a file beside `place`, and makes the folder for both.
    pub fn write(place: PathBuf, content: &Content) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot write {}: {error}", place.display());
        if place.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let folder = place.parent().unwrap_or(&place);
        create_folder(folder)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!(".{name}.{}", process::id()));
        let mut file = File::create_new(&path).map_err(failed)?;
        // From here on, it is removed unless it is put in place.
        let staged = Self { path, place: place.clone() };
        content
            .write(&mut file)
            .and_then(|()| file.set_permissions(Permissions::from_mode(content.mode())))
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        Ok(staged)
    }

    /// Replaces what is at its place, and returns that.
    pub fn put_in_place(self) -> Result<PathBuf, String> {
        fs::rename(&self.path, &self.place)
            .map_err(|error| format!("cannot write {}: {error}", self.place.display()))?;
        Ok(self.place.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It is gone if it was put in place.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a folder and those that it is in.
pub fn create_folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("cannot create {}: {error}", path.display()))
}

/// Whether a file is this program, of whatever version: all of them know the same environment variable.
pub fn is_this_program(path: &Path) -> Result<bool, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    // SAFETY: both are as long as is said.
    let found =
        unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), VARIABLE.as_ptr().cast(), VARIABLE.len()) };
    Ok(!found.is_null())
}
