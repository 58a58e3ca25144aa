// An extension: it finds torch's library because torch was imported before it, not by a path.
namespace at {
double lerp(double start, double end, double weight);
}
double half() { return at::lerp(0.0, 1.0, 0.5); }
