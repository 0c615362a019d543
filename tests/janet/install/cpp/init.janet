# Janet code beside a module in C++.

(import ./native)

(defn numbers
  "Sorts numbers."
  [numbers]
  (native/sort numbers))
