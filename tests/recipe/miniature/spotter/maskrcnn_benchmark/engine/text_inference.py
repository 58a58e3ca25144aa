def size_of(box):
	box_h = box[3] - box[1]
	box_w = box[2] - box[0]
	return box_w, box_h
