package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// authority signs the certificates of one cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// identity is a user as the API server reads it from a client certificate.
type identity struct {
	user   string
	groups []string
}

// makeCredentials writes the cluster's authority, the API server's certificate, the key of service account tokens, and the
// kubeconfigs of the control plane and of the administrator.
func (c *Cluster) makeCredentials() error {
	if err := os.MkdirAll(c.path("pki"), 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "baton lab"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a := authority{cert: template, key: key}
	if a.cert, a.pem, err = a.sign(template, key.Public()); err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		IPAddresses: []net.IP{net.ParseIP(Gateway), net.ParseIP("127.0.0.1"), net.ParseIP(ServiceIP)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(tokens.Public())
	if err != nil {
		return err
	}
	faults := []error{
		os.WriteFile(c.path("pki/ca.crt"), a.pem, 0o644),
		writeKey(c.path("pki/ca.key"), key),
		a.write(c.path("pki/apiserver"), server),
		writeKey(c.path("pki/tokens.key"), tokens),
		os.WriteFile(c.path("pki/tokens.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644),
	}
	for file, who := range map[string]identity{
		"admin.kubeconfig":              {"admin", []string{"system:masters"}},
		"controller-manager.kubeconfig": {"system:kube-controller-manager", nil},
		"scheduler.kubeconfig":          {"system:kube-scheduler", nil},
	} {
		faults = append(faults, a.kubeconfig(c.path(file), who))
	}
	return errors.Join(faults...)
}

// authority reads the cluster's authority back, to sign the certificate of a new node.
func (c *Cluster) authority() (authority, error) {
	cert, err := os.ReadFile(c.path("pki/ca.crt"))
	if err != nil {
		return authority{}, err
	}
	key, err := os.ReadFile(c.path("pki/ca.key"))
	if err != nil {
		return authority{}, err
	}
	a := authority{pem: cert}
	certBlock, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil {
		return a, errors.New("the cluster's authority is not PEM")
	}
	if a.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return a, err
	}
	a.key, err = x509.ParseECPrivateKey(keyBlock.Bytes)
	return a, err
}

func (a authority) sign(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, []byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate for %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// write makes a key and signs it: path.crt, path.key.
func (a authority) write(path string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, cert, err := a.sign(template, key.Public())
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path+".crt", cert, 0o644), writeKey(path+".key", key))
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

// kubeconfig writes a kubeconfig that holds a new client certificate.
func (a authority) kubeconfig(path string, who identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, cert, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: who.user, Organization: who.groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key.Public())
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"lab": {Server: "https://" + APIAddr, CertificateAuthorityData: a.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"lab": {ClientCertificateData: cert, ClientKeyData: keyPEM}},
		Contexts:       map[string]*clientcmdapi.Context{"lab": {Cluster: "lab", AuthInfo: "lab"}},
		CurrentContext: "lab",
	}, path)
}

// Kubeconfig is the administrator's, for programs that run inside the cluster's network (see Command).
func (c *Cluster) Kubeconfig() string { return c.path("admin.kubeconfig") }

// RestConfig is the administrator's. It connects through Dial, so that it works from the host; client-go's limits of its own
// are off.
func (c *Cluster) RestConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig of cluster %q: %w", c.Name, err)
	}
	config.Dial, config.QPS, config.Burst = c.Dial, -1, -1
	return config, nil
}

func (c *Cluster) connect() error {
	config, err := c.RestConfig()
	if err != nil {
		return err
	}
	c.client, err = kubernetes.NewForConfig(config)
	return err
}

// Client of the administrator.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// ServerTLS returns what serves in the API server's place: its certificate, and the authority that both sides trust.
func (c *Cluster) ServerTLS() (tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(c.path("pki/apiserver.crt"), c.path("pki/apiserver.key"))
	if err != nil {
		return cert, nil, fmt.Errorf("reading the API server's certificate: %w", err)
	}
	a, err := c.authority()
	if err != nil {
		return cert, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return cert, pool, nil
}
