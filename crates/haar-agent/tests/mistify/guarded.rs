//! The REST at an address that others reach: TLS on the way and a token with every request, or not at all.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haar_agent::local::{self, Guard, Listen, Plan, Profiling, Settings};
use http::Request;
use http_body_util::Full;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::stub::Stub;
use crate::world::{exchange, sample};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A certificate, its key and a token, each in its file.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn make() -> Files {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = Files { folder: tempfile::tempdir().unwrap() };
        files.write("cert.pem", &made.cert.pem(), 0o644);
        files.write("key.pem", &made.signing_key.serialize_pem(), 0o600);
        files.write("token", &format!("{TOKEN}\n"), 0o600);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn guard(&self) -> Result<Guard, String> {
        Guard::read(&self.path("cert.pem"), &self.path("key.pem"), &self.path("token"))
            .map_err(|error| error.to_string())
    }

    fn client(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(self.path("cert.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        TlsConnector::from(Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth()))
    }
}

fn settings(folder: &Path, stub: &Stub, guard: Guard) -> Settings {
    // Every address of this host: what only a guard may listen on.
    let address: SocketAddr = "0.0.0.0:0".parse().unwrap();
    Settings {
        socket: folder.join("agent.sock"),
        listen: Some(Listen { address, guard: Some(guard) }),
        plan: Plan::parse(&sample(stub.address).to_string()).unwrap(),
        store: folder.join("rest.redb"),
        profiling: Profiling::Off,
    }
}

fn request(authorization: Option<&str>) -> Request<Full<bytes::Bytes>> {
    let request = Request::get("/guests").header("host", "localhost");
    let request =
        authorization.into_iter().fold(request, |request, word| request.header("authorization", word));
    request.body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn others_reach_the_rest_by_tls_and_with_the_token_only() {
    let (files, stub) = (Files::make(), Stub::start().await);
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = settings(files.folder.path(), &stub, files.guard().unwrap());
    let running = local::start(settings, async move { drop(stopped.await) }).await.unwrap();
    let port = running.address().unwrap().port();
    let ask = async |authorization: Option<&str>| {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = files.client().connect(name, stream).await.unwrap();
        exchange(stream, request(authorization)).await
    };
    assert_eq!(ask(Some(&format!("Bearer {TOKEN}"))).await.is(200).text(), "null\n");
    // What `https://any:TOKEN@host/` becomes.
    let pair = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("any:{TOKEN}"));
    ask(Some(&format!("Basic {pair}"))).await.is(200);
    for wrong in [None, Some("Bearer 0123"), Some("Bearer "), Some("Basic !"), Some(TOKEN)] {
        let refused = ask(wrong).await.is(401);
        assert!(refused.text().contains("token is needed"), "{wrong:?}");
    }

    // Plain HTTP is no TLS: no answer, and nothing of it is carried out.
    let plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let words = format!("GET /guests HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    plain.writable().await.unwrap();
    plain.try_write(words.as_bytes()).unwrap();
    let mut heard = Vec::new();
    // The alert of TLS, or a reset.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut { plain }, &mut heard).await;
    assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");

    stop.send(()).unwrap();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_guard_are_refused_with_what_to_do() {
    let files = Files::make();
    files.guard().unwrap();
    let refused = |files: &Files, words: [&str; 2]| {
        let error = files.guard().err().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    files.write("token", "short\n", 0o600);
    refused(&files, ["token", "openssl rand"]);
    files.write("token", TOKEN, 0o644);
    refused(&files, ["token", "chmod 0600"]);
    files.write("token", TOKEN, 0o600);
    let key = std::fs::read_to_string(files.path("key.pem")).unwrap();
    files.write("key.pem", &key, 0o640);
    refused(&files, ["key.pem", "chmod 0600"]);
    files.write("key.pem", "not a key", 0o600);
    refused(&files, ["key.pem", "no private key"]);
    let other = rcgen::KeyPair::generate().unwrap();
    files.write("key.pem", &other.serialize_pem(), 0o600);
    refused(&files, ["cert.pem", "cannot be used"]);
    files.write("key.pem", &key, 0o600);
    files.write("cert.pem", "", 0o644);
    refused(&files, ["cert.pem", "no certificate"]);
    std::fs::remove_file(files.path("cert.pem")).unwrap();
    refused(&files, ["cannot read", "cert.pem"]);
}
