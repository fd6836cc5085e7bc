//! Whether guests run under KVM or under QEMU's own translator (TCG), design §7.
//!
//! `auto` wants proof that KVM works: some hosts have a `/dev/kvm` that opens, on a CPU without
//! virtualisation, and ordinary kernels hang on it.

use haar_api::rpc::{Fault, FaultCode};

/// What runs a guest's instructions; [`Accel::Test`] is libvirt's test driver, which runs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
    Test,
}

impl Accel {
    /// The word of `Libvirt.Host`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
            Accel::Test => "test",
        }
    }
}

/// What was found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Why `/dev/kvm` does not open, if it does not.
    pub(crate) device_error: Option<String>,
    /// `vmx` or `svm` among the CPU's flags, or an architecture that has no such flag.
    pub(crate) cpu_virtualises: bool,
    /// libvirt's test driver answers: there is no hypervisor at all.
    pub(crate) test_driver: bool,
}

impl Probe {
    /// Looks at this host.
    pub(crate) fn take(test_driver: bool) -> Self {
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Probe {
            device_error: device.err().map(|error| error.to_string()),
            cpu_virtualises: virtualises(std::env::consts::ARCH, &cpuinfo),
            test_driver,
        }
    }

    /// What `auto` means here, and why not KVM (empty for KVM).
    pub(crate) fn auto(&self) -> (Accel, String) {
        if self.test_driver {
            return (Accel::Test, "libvirt's test driver runs nothing".into());
        }
        if let Some(error) = &self.device_error {
            return (Accel::Tcg, format!("/dev/kvm does not open: {error}"));
        }
        if !self.cpu_virtualises {
            return (Accel::Tcg, "the CPU has neither vmx nor svm, so this /dev/kvm is not trusted".into());
        }
        (Accel::Kvm, String::new())
    }

    /// What a guest that asks for `wanted` gets; empty means `auto`.
    ///
    /// # Errors
    /// `invalid` for an unknown word, `unavailable` for `kvm` where `/dev/kvm` does not open.
    pub(crate) fn choose(&self, wanted: &str) -> Result<Accel, Fault> {
        match wanted {
            "" | "auto" => Ok(self.auto().0),
            "kvm" | "tcg" | "test" if self.test_driver => Ok(Accel::Test),
            "tcg" => Ok(Accel::Tcg),
            // Whoever writes `kvm` knows better than the CPU flags.
            "kvm" => match &self.device_error {
                None => Ok(Accel::Kvm),
                Some(error) => Err(Fault::new(
                    FaultCode::Unavailable,
                    format!("accel is `kvm` but /dev/kvm does not open ({error}): use `auto` or `tcg`"),
                )),
            },
            other => Err(Fault::new(
                FaultCode::Invalid,
                format!("accel is {other:?}: it must be `auto`, `kvm` or `tcg`"),
            )),
        }
    }
}

fn virtualises(arch: &str, cpuinfo: &str) -> bool {
    if !matches!(arch, "x86_64" | "x86") {
        return true;
    }
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(device_error: Option<&str>, cpu_virtualises: bool) -> Probe {
        Probe { device_error: device_error.map(str::to_owned), cpu_virtualises, test_driver: false }
    }

    #[test]
    fn auto_needs_the_device_and_the_cpu() {
        assert_eq!(probe(None, true).auto(), (Accel::Kvm, String::new()));
        let (accel, why) = probe(None, false).auto();
        assert_eq!(accel, Accel::Tcg);
        assert!(why.contains("vmx"), "{why}");
        let (accel, why) = probe(Some("No such file"), true).auto();
        assert_eq!(accel, Accel::Tcg);
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn a_person_may_insist_on_kvm_or_tcg() {
        assert_eq!(probe(None, false).choose("kvm"), Ok(Accel::Kvm));
        assert_eq!(probe(None, true).choose("tcg"), Ok(Accel::Tcg));
        assert_eq!(probe(Some("gone"), true).choose("kvm").unwrap_err().code, FaultCode::Unavailable);
        assert_eq!(probe(None, true).choose("KVM").unwrap_err().code, FaultCode::Invalid);
    }

    #[test]
    fn only_whole_flags_count_and_only_on_x86() {
        assert!(virtualises("x86_64", "processor: 0\nflags\t\t: fpu svm lm\n"));
        assert!(!virtualises("x86_64", "flags\t\t: fpu vmx_like\nvmx flags\t: vnmi\n"));
        assert!(virtualises("aarch64", ""));
    }
}
