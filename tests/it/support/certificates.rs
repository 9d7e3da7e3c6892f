//! Certificates of one's own.

use std::path::PathBuf;

use mcp_messaging::tls::CertificateFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use tempfile::TempDir;

/// Who signs certificates. Its files end with this value.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, dir: tempfile::tempdir().unwrap() };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A new certificate for organizations, and for whom the last word is the common name; for an organization alone, if
    /// there is but one word.
    pub(crate) fn issue_to(&self, subject: &[&str]) -> CertificateFiles {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let (organizations, name) = match subject {
            [organization] => (&[*organization][..], None),
            [organizations @ .., name] => (organizations, Some(*name)),
            [] => panic!("nobody"),
        };
        // A name has one of each kind: the unit stands for a second organization.
        for (kind, organization) in [DnType::OrganizationName, DnType::OrganizationalUnitName]
            .into_iter()
            .zip(organizations)
        {
            params.distinguished_name.push(kind, *organization);
        }
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        self.sign(&params, &subject.join("-").replace('/', "-"))
    }

    /// A new certificate for a host name or an address, in the files of the one before.
    pub(crate) fn issue(&self, name: &str) -> CertificateFiles {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(&params, name)
    }

    fn sign(&self, params: &CertificateParams, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.dir.path().join(format!("{name}{end}"));
        let files = CertificateFiles { certificate: file(".pem"), key: file("-key.pem") };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}
