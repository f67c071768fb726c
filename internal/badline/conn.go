package badline

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// gate is the line's listener. Every connection that it accepts can be stopped.
type gate struct {
	net.Listener
	line *Line
}

func (g gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // a listener passes on what it is given.
		}
		if c, ok := g.line.accept(c); ok {
			return c, nil
		}
	}
}

// conn is a connection of the client.
type conn struct {
	net.Conn
	line *Line
	once sync.Once
	gone chan struct{} // closed with the connection

	severed bool // guarded by the line
}

func (l *Line) accept(c net.Conn) (*conn, bool) {
	n := &conn{Conn: c, line: l, gone: make(chan struct{})}
	l.mu.Lock()
	ok := l.state != refuses && l.state != closed
	if ok {
		l.conns[n] = struct{}{}
	}
	l.mu.Unlock()
	if !ok {
		n.reset()
	}
	return n, ok
}

// set changes what the line does. It returns false for a line that is closed, which stays so.
func (l *Line) set(s state) bool {
	l.mu.Lock()
	if l.state == closed {
		l.mu.Unlock()
		return false
	}
	l.state = s
	var broken []*conn
	if s == refuses || s == closed {
		for c := range l.conns {
			broken = append(broken, c)
		}
	}
	l.tell()
	l.mu.Unlock()
	for _, c := range broken {
		c.reset()
	}
	return true
}

// Read delivers what has come, but not out of a black hole.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for err == nil && c.line.severs(c) { // what comes is for nobody, until the client gives up
		_, err = c.Conn.Read(p)
	}
	if err != nil {
		c.line.ended(c)
	}
	if err := c.through(); err != nil {
		return 0, err
	}
	return n, err //nolint:wrapcheck // a connection passes on what it is given.
}

// Write sends, but not into a black hole.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.through(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p) //nolint:wrapcheck // a connection passes on what it is given.
}

func (l *Line) severs(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.severed
}

// ended notes that the client has closed a connection.
func (l *Line) ended(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.severed {
		l.givenUp = append(l.givenUp, time.Now())
	}
}

// through waits until the line lets packets through.
func (c *conn) through() error {
	for {
		c.line.mu.Lock()
		hole, changed := c.line.state == holed || c.severed, c.line.changed
		c.line.mu.Unlock()
		if !hole {
			return nil
		}
		select {
		case <-changed:
		case <-c.gone:
			return net.ErrClosed
		}
	}
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // a connection passes on what it is given.
}

// reset ends the connection with an RST, which no side expects.
func (c *conn) reset() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // a connection that is closed already needs none
	}
	_ = c.Close()
}

type connKey struct{}

// withConn lets the handler of a request reach its connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// selfSigned makes a certificate for 127.0.0.1, and returns it in PEM too, for clients to trust.
func selfSigned() (*tls.Config, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "badline"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing a certificate: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return cfg, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
