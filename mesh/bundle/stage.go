package bundle

import (
	"errors"
	"io"

	"meshd/mesh/wire"
)

// WritePage puts a page of records aside, for ReadPages of the same run of the same program.
func WritePage(w io.Writer, page [][]byte) error {
	b, err := wire.Marshal(version, &recordsFrame{page})
	if err != nil {
		return err
	}
	return wire.WriteFrame(w, frameRecords, b)
}

// ReadPages hands each the pages that WritePage put aside, in order.
func ReadPages(r io.Reader, each func(page [][]byte) error) error {
	for {
		_, b, err := wire.ReadFrame(r, maxPageFrame)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var page recordsFrame
		if err := wire.Unmarshal(b, version, frameLimits, &page); err != nil {
			return err
		}
		if err := each(page.Records); err != nil {
			return err
		}
	}
}
