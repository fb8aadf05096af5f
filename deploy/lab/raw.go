package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"
)

// rawTransfer is the least that any verified and sealed transfer costs: TLS 1.3 over loopback, SHA-256 of
// what came. It returns the processor time of both ends.
func rawTransfer(ctx context.Context, size int) (time.Duration, error) {
	server, client, err := throwaway()
	if err != nil {
		return 0, err
	}
	ln, err := tls.Listen("tcp", listen, server)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	before, err := cpuOf(os.Getpid())
	if err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() { sent <- sendRaw(ln.Addr().String(), client, size) }()
	conn, err := ln.Accept()
	if err != nil {
		return 0, errors.Join(err, <-sent)
	}
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{conn}, make([]byte, 128<<10))
	err = errors.Join(err, conn.Close(), <-sent)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("%d of %d bytes came", n, size)
	}
	after, cpuErr := cpuOf(os.Getpid())
	return after - before, errors.Join(err, cpuErr)
}

func sendRaw(addr string, c *tls.Config, size int) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, c)
	if err != nil {
		return err
	}
	block := make([]byte, 128<<10)
	for ; size > 0 && err == nil; size -= len(block) {
		_, err = conn.Write(block[:min(size, len(block))])
	}
	return errors.Join(err, conn.Close())
}

// throwaway makes a certificate that lasts for one measurement.
func throwaway() (server, client *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"lab"}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "lab"}, nil
}
